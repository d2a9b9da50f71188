"""Detection on millions of images by many processes (Ray Data).

In: folders, tar shards, Parquet files, here or behind a URL. Out: Parquet parts of keypoints; what is finished stays
finished when the run is started again."""

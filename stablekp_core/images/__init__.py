"""From image files to what the model sees.

In: files, folders, arrays. Out: RGB images, the model input (resized or padded), affine views (the T of Eq. 5) and
their inverse, the average over views (Eq. 11), latents, masks, crops. Holds no loss."""

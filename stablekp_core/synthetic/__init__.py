"""Images with known joints, for the demo, tests and benchmarks.

In: a kind (dolls, faces), a seed. Out: rendered images, joints, part labels. The paper has no equivalent."""

"""From queries and keys to token maps, and from maps to points.

In: queries and keys, or their logits. Out: token maps [B, N, R, R] (Eq. 2 and 3), their peaks and the Gaussians at
them (Eq. 7 and 8), sub-pixel positions. Knows nothing of images, models or files."""

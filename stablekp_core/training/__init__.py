"""Learning the tokens.

In: latents of images and of their views, tokens. Out: the losses of one step (Eq. 4 total, Eq. 5 equivariance, Eq. 6
localisation) and, over many steps, learned tokens with their checkpoint."""

"""The frozen diffusion model.

In: a model file, folder or name. Out: a `Backbone`: images to latents, latents and tokens to the queries and keys of
the four cross-attentions that the method reads. Holds the noisy latents z_t of Eq. 1 and the inputs of Eq. 2."""

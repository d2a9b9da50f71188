"""From image files to what the model sees.

In: files, folders, arrays. Out: RGB images, the model input (resized or padded), affine views and their inverse
(the T of Eq. 5), latents, masks, crops. Holds the transform of Eq. 5, no loss."""

"""What is trained and how: the VAE, the transformer and its discriminator."""

"""I2P-MAE: masked autoencoding of point clouds, guided by an image model."""

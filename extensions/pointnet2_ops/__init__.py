"""The published ``pointnet2_ops`` package's face."""

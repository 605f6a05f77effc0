"""What one step and one evaluation of each kind of training are."""

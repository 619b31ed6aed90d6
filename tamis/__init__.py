"""tamis: curate and select language-model training data, and measure that it helped."""

__version__ = "0.1.0"

"""Text in, `Conditioning` out: tokenizers, frozen text encoders and the conditioners made of them."""

"""One module per peer, all of the same shape; each lists its variants in `CONTENDERS`."""

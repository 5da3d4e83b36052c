//! ResNets, projection heads and an adapter for candle autograd modules.

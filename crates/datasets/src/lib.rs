//! CIFAR-10 and MNIST files on disk as sample sources.

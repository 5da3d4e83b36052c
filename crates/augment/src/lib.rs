//! Decodes an image once and draws views of it as torchvision and Pillow do.

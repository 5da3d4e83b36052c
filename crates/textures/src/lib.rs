//! The embedded data set: labelled printed textures, generated from a seed.

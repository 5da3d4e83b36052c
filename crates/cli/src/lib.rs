//! What the binaries share: arguments, exit codes, progress and error printing.

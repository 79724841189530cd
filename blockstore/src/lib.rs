//! Immutable checksummed blocks in segment files.

//! Identifiers, byte ranges, attributes, limits, clock and the disk trait.

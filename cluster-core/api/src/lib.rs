//! Commands, outcomes and the metadata service trait.

//! Tests of the engine through its public entry points.

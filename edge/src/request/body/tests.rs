//! Tests of reading and editing bodies.

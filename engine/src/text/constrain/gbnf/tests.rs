//! Tests of constraints.

//! One night in order.

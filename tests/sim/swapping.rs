//! Directed stories of swaps.

//! The maps in memory, for tests.

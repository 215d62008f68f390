//! The maps in the kernel.

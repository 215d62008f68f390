//! The socket hooks: system calls of local processes. `svc-common` decides; here is only what the kernel calls things.

mod call;
mod hooks;
mod maps;

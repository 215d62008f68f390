//! Real sockets in network namespaces: each file is a feature, each test a sentence that begins with its behaviour.

mod harness;

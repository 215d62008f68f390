//! What the running kernel makes of every program and every way to attach it.

use svc_tests::{kernel, need};

/// Not only those that a test of these happens to run: also the programs for veth and the socket hooks'.
#[test]
fn every_program_loads_and_every_hook_takes_it() {
    const NAME: &str = "kernel::every_program_loads_and_every_hook_takes_it";
    if !need::root(NAME) {
        return;
    }
    if !svc_agent::datapath::embedded() {
        return need::skip(NAME, "needs the kernel programs");
    }
    let (rows, refused) = std::thread::spawn(kernel::rows).join().expect("no panic").expect("answers");
    for (what, answer) in &rows {
        println!("{what}: {answer}");
    }
    assert!(refused.is_empty(), "{refused:#?}");
    let answer = |what: &str| rows.iter().find(|(row, _)| row.contains(what)).map_or("", |(_, answer)| answer);
    for hook in ["in the driver", "in the stack", "clsact"] {
        assert_eq!(answer(hook), "yes", "{hook}");
    }
    assert_eq!(answer("socket hooks"), "9 of 9");
}

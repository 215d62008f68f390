//! Random histories on both compilations: verdicts, frames and tables must be the same, packet by packet.

use svc_tests::{
    need,
    oracle::{
        random::{Plan, fuzz, tour},
        with_oracle,
    },
};

#[test]
fn inputs_of_the_fuzzer_are_the_same_in_the_kernel_and_on_the_host() {
    with_oracle(|oracle| {
        for input in fuzz::corpus() {
            fuzz::input(oracle, &input).unwrap_or_else(|difference| panic!("{input:02x?}: {difference}"));
        }
    });
}

#[test]
fn random_histories_are_the_same_in_the_kernel_and_on_the_host() {
    let plan = Plan::of_environment();
    println!("{plan:?}");
    match tour(plan) {
        Some(Ok(summary)) => {
            println!("{summary}");
            // What is never reached proves nothing.
            for outcome in ["deliver", "drop", "pass", "resolve", "send"] {
                let seen = summary.outcomes.get(outcome).copied().unwrap_or(0);
                assert!(seen * 1_000 > summary.packets || plan.history.is_some(), "{outcome}: {seen} packets only");
            }
        }
        Some(Err(difference)) => panic!("{difference}"),
        None => need::skip(
            "random_histories_are_the_same_in_the_kernel_and_on_the_host",
            "needs root and the kernel programs",
        ),
    }
}

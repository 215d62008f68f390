//! What the figures should be.

use super::contender::{Way, row};
use super::load::Task;
use super::measured::{Column, Measured};
use super::rules::Filter;
use super::services::Services;
use super::stage::From;
use crate::bench::{Bound, Report, Samples};

/// Longest that a packet of an open connection may take through the node, in ns.
const ESTABLISHED_NS: f64 = 280.0;
/// Longest that the first packet of a connection may take.
const NEW_NS: f64 = 1_000.0;

/// Adds every goal whose figures were measured.
pub fn add(report: &mut Report, measured: &Measured, counts: &[usize]) {
    let (fewest, most) = (counts.iter().copied().min().unwrap_or(1), counts.iter().copied().max().unwrap_or(1));
    let rate = |from, task, way, count| measured.get(from, Column::Rate(task), &row(way, Services(count)));
    let mut goal = |what: String, bound: Bound, samples: Samples| {
        // What was left out is no goal that was missed.
        if samples != Samples::default() {
            report.goal(what, bound, samples);
        }
    };
    for (task, what) in
        [(Task::Connections, "connections"), (Task::TcpRequests, "TCP requests"), (Task::UdpRequests, "UDP requests")]
    {
        let hooks = rate(From::Pod, task, Way::Sockets, fewest);
        for (than, way) in [("the pod's own address", Way::Direct), ("plain routing", Way::Plain)] {
            let ratio = hooks.over(&rate(From::Pod, task, way, fewest));
            goal(format!("{what}, socket hooks : {than}"), Bound::AtLeast(0.98), ratio);
        }
    }
    for from in From::ALL {
        let place = from.title();
        let plain = |task| rate(from, task, Way::Plain, fewest);
        let peer = |task, count| rate(from, task, Way::Peer, count);
        for (task, what, least) in [
            (Task::Connections, "connections", 1.1),
            (Task::TcpRequests, "TCP requests", 1.05),
            (Task::UdpRequests, "UDP requests", 1.05),
            (Task::Stream, "one TCP stream", 1.0),
        ] {
            let ratio = peer(task, fewest).over(&plain(task));
            goal(format!("{place}, {what}, tc : plain routing"), Bound::AtLeast(least), ratio);
        }
        let connections = |way, count| peer(Task::Connections, count).over(&rate(from, Task::Connections, way, count));
        if fewest == 1 {
            let ratio = connections(Way::Rules(Filter::Nftables), 1);
            goal(format!("{place}, connections, tc : nftables, 1 service"), Bound::AtLeast(1.4), ratio);
        }
        if most == 10_000 {
            for filter in [Filter::IptablesNft, Filter::IptablesLegacy] {
                let way = Way::Rules(filter);
                let what = format!("{place}, connections, tc : {}, 10000 services", way.name());
                goal(what, Bound::AtLeast(2.0), connections(way, most));
            }
        }
        for (column, what, limit) in
            [(Column::Established, "established", ESTABLISHED_NS), (Column::New, "new", NEW_NS)]
        {
            let path = |count| measured.get(from, column, &row(Way::Peer, Services(count)));
            goal(format!("{place}, whole path, {what}, ns"), Bound::AtMost(limit), path(fewest));
            if most > fewest {
                let ratio = path(most).over(&path(fewest));
                goal(format!("{place}, whole path, {what}, {most} : {fewest} services"), Bound::AtMost(1.1), ratio);
            }
        }
        if most > fewest {
            let ratio = peer(Task::Connections, most).over(&peer(Task::Connections, fewest));
            goal(format!("{place}, connections, tc, {most} : {fewest} services"), Bound::AtLeast(0.9), ratio);
        }
    }
}

//! Which backends new connections may use: the cluster set and the local set (B54, B55, B57, B60).

use super::backends::Candidate;
use super::{Choice, Node};

/// The cluster set: the ready ones that topology allows, else those that serve while they terminate.
pub fn cluster(candidates: &[Candidate<'_>], node: &Node) -> Choice {
    let ready = indices(candidates, |candidate| candidate.backend.ready);
    let chosen = topology(candidates, ready, node);
    let chosen = if chosen.is_empty() { indices(candidates, draining) } else { chosen };
    if chosen.is_empty() { Choice::Reject } else { Choice::Backends(chosen) }
}

/// The local set: topology hints do not matter here. Without an endpoint on this node, the packet is dropped if the
/// cluster set has any, so that the client does not take the Service for gone.
pub fn local(candidates: &[Candidate<'_>], cluster: &Choice) -> Choice {
    let chosen = indices(candidates, |candidate| candidate.backend.local && candidate.backend.ready);
    let chosen = if chosen.is_empty() {
        indices(candidates, |candidate| candidate.backend.local && draining(candidate))
    } else {
        chosen
    };
    match (chosen.is_empty(), cluster) {
        (false, _) => Choice::Backends(chosen),
        (true, Choice::Backends(_) | Choice::Drop) => Choice::Drop,
        (true, Choice::Reject) => Choice::Reject,
    }
}

fn draining(candidate: &Candidate<'_>) -> bool {
    candidate.backend.serving && candidate.backend.terminating
}

/// Applies the hints: of nodes if every ready endpoint has one and one names this node, else of zones by the same
/// rule, else none.
fn topology(candidates: &[Candidate<'_>], ready: Vec<usize>, node: &Node) -> Vec<usize> {
    hinted(candidates, &ready, |candidate| &candidate.endpoint.for_nodes, &node.name)
        .or_else(|| hinted(candidates, &ready, |candidate| &candidate.endpoint.for_zones, node.zone.as_deref()?))
        .unwrap_or(ready)
}

fn hinted<'a>(
    candidates: &[Candidate<'a>],
    ready: &[usize],
    hints: impl Fn(&Candidate<'a>) -> &'a [String],
    place: &str,
) -> Option<Vec<usize>> {
    let mut ours = Vec::new();
    for index in ready {
        let hints = hints(candidates.get(*index)?);
        if hints.is_empty() {
            return None;
        }
        if hints.iter().any(|hint| hint == place) {
            ours.push(*index);
        }
    }
    (!ours.is_empty()).then_some(ours)
}

fn indices(candidates: &[Candidate<'_>], wanted: impl Fn(&Candidate<'_>) -> bool) -> Vec<usize> {
    candidates.iter().enumerate().filter(|(_, candidate)| wanted(candidate)).map(|(index, _)| index).collect()
}

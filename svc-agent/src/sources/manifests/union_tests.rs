//! Whatever happened to the files: what is kept up to date is what would be made of them all anew.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::memory::Memory;
use super::scan::Stamp;
use super::union::{Held, Name, Union};
use crate::model::Rules;
use crate::sources::{Keeper, Snapshot};

/// Documents of few names, so that files define the same ones; some are refused, some ignored.
const DOCUMENTS: [&str; 9] = [
    "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n",
    "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: http}]}\n",
    "apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {clusterIP: 10.96.0.2, ports: [{port: 81}]}\n",
    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
     metadata: {name: a-1, labels: {kubernetes.io/service-name: a}}\nendpoints: [{addresses: [10.0.0.1]}]\n",
    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
     metadata: {name: a-1, labels: {kubernetes.io/service-name: b}}\nendpoints: []\n",
    "apiVersion: v1\nkind: Endpoints\nmetadata: {name: a}\nsubsets: [{addresses: [{ip: 10.0.0.9}], ports: [{port: 1}]},\
     {addresses: [{ip: 10.0.0.9}], ports: [{port: 2}]}]\n",
    "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n",
    "apiVersion: v1\nkind: Node\nmetadata: {name: n}\n",
    "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n",
];

/// What is to be equal, as text.
fn shown(snapshot: &Snapshot) -> String {
    let Snapshot { objects, problems, complete } = snapshot;
    format!("{objects:#?}\n{problems:#?}\n{complete}")
}

fn anew(files: &BTreeMap<Name, Memory>, backwards: bool) -> Snapshot {
    let mut union = Union::default();
    let mut all: Vec<_> = files.iter().collect();
    if backwards {
        all.reverse();
    }
    for (name, file) in all {
        union.exchange(name, None, Some(file));
    }
    union.snapshot()
}

proptest! {
    #[test]
    fn b80_what_is_kept_up_to_date_is_what_would_be_made_anew(
        steps in prop::collection::vec((0_usize..4, prop::option::weighted(0.8, prop::collection::vec(0..DOCUMENTS.len(), 0..5))), 1..30)
    ) {
        let mut files: BTreeMap<Name, Memory> = BTreeMap::new();
        let mut union = Union::default();
        for (index, documents) in steps {
            let keeper = if index < 2 { Keeper::Manifests } else { Keeper::Applied };
            let name = Name { keeper, file: format!("{index}.yaml").into() };
            let before = files.get(&name).map(Held::by);
            match documents {
                Some(documents) => {
                    let texts: Vec<&str> = documents.iter().map(|document| DOCUMENTS[*document]).collect();
                    let file = files.entry(name.clone()).or_insert_with(|| Memory::new(keeper));
                    file.update(&name.file, Stamp::default(), texts.join("---\n").as_bytes(), false, &Rules::default(), index == 0);
                }
                None => drop(files.remove(&name)),
            }
            union.exchange(&name, before.as_ref(), files.get(&name));
            let kept = shown(&union.snapshot());
            prop_assert_eq!(&kept, &shown(&anew(&files, false)));
            prop_assert_eq!(&kept, &shown(&anew(&files, true)));
        }
    }
}

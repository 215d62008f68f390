//! Several sources as one: of an object that two define, the one of the first source counts.

use super::{Objects, Snapshot};
use crate::model::{ObjectKey, ObjectKind, Problem, ServiceName, SliceOrigin};

/// Puts snapshots together, the most important first. It is complete when all of them are.
pub fn merge(snapshots: impl IntoIterator<Item = Snapshot>) -> Snapshot {
    let mut snapshots = snapshots.into_iter();
    let mut whole = snapshots.next().unwrap_or_else(|| Snapshot { complete: true, ..Snapshot::default() });
    for snapshot in snapshots {
        add(&mut whole, snapshot);
    }
    whole
}

fn add(whole: &mut Snapshot, more: Snapshot) {
    whole.complete &= more.complete;
    whole.problems.extend(more.problems);
    let mut more = more.objects;
    for (key, raw) in &std::mem::take(&mut more.raw) {
        match whole.objects.raw.get(key) {
            Some(first) if !first.refused => {
                let text = format!(
                    "{}, {key}: defined already in {}, which counts; remove one of them",
                    raw.origin, first.origin
                );
                whole.problems.push(Problem::error(text));
                if !raw.refused {
                    more.remove(key);
                }
            }
            // What is refused hides nothing.
            Some(_) if raw.refused => {}
            Some(_) | None => {
                whole.objects.raw.insert(key.clone(), raw.clone());
            }
        }
    }
    let all = &mut whole.objects;
    all.services.extend(more.services.iter().map(|(name, service)| (name.clone(), service.clone())));
    for (name, slices) in &more.slices {
        let mut both = all.slices.get(name).cloned().unwrap_or_default();
        both.extend(slices.iter().cloned());
        both.sort_by(|a, b| a.name.cmp(&b.name));
        all.slices.insert(name.clone(), both);
    }
    for (namespace, pods) in &more.pods {
        let mut both = all.pods.get(namespace).cloned().unwrap_or_default();
        both.extend(pods.iter().map(|(name, pod)| (name.clone(), pod.clone())));
        all.pods.insert(namespace.clone(), both);
    }
    all.nodes.extend(more.nodes);
    for (kind, count) in more.counts {
        *all.counts.entry(kind).or_default() += count;
    }
    for (kind, count) in more.ignored {
        *all.ignored.entry(kind).or_default() += count;
    }
}

impl Objects {
    /// Removes an object that is used.
    fn remove(&mut self, key: &ObjectKey) {
        if let Some(count) = self.counts.get_mut(&key.kind) {
            *count = count.saturating_sub(1);
        }
        let source = match key.kind {
            ObjectKind::Service => {
                self.services.remove(&ServiceName::new(&*key.namespace, &*key.name));
                return;
            }
            ObjectKind::EndpointSlice => SliceOrigin::Slice,
            ObjectKind::Endpoints => SliceOrigin::Endpoints,
            ObjectKind::Pod => {
                if let Some(pods) = self.pods.get_mut(&key.namespace) {
                    pods.remove(&key.name);
                }
                return;
            }
            ObjectKind::Node => {
                self.nodes.remove(&key.name);
                return;
            }
        };
        self.slices.retain(|service, slices| {
            if service.namespace == key.namespace {
                slices.retain(|slice| slice.source != source || slice.name != key.name);
            }
            !slices.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Rules;
    use crate::sources::manifests::ManifestSource;

    fn read(name: &str, text: &str) -> Snapshot {
        ManifestSource::read_text(text.as_bytes(), name, &Rules::default())
    }

    fn service(name: &str, port: &str) -> String {
        format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n")
    }

    fn slice(name: &str, service: &str) -> String {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {service}}}}}\nendpoints: []\n"
        )
    }

    #[test]
    fn the_first_source_wins_and_both_origins_are_told() {
        let first = read("a", &(service("web", "80") + &slice("web-1", "web")));
        let second = service("web", "81") + &service("dns", "53") + &slice("web-1", "dns") + &slice("web-2", "web");
        let whole = merge([first, read("b", &second)]);
        let services: Vec<_> =
            whole.objects.services.values().map(|service| (&*service.name.name, service.ports[0].port)).collect();
        assert_eq!(services, [("dns", 53), ("web", 80)]);
        let slices: Vec<_> =
            whole.objects.slices.values().flatten().map(|slice| (&*slice.service.name, &*slice.name)).collect();
        assert_eq!(slices, [("web", "web-1"), ("web", "web-2")]);
        let texts: Vec<_> = whole.problems.iter().map(|problem| problem.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "b document 1, Service `default/web`: defined already in a document 1, which counts; remove one of them",
                "b document 3, EndpointSlice `default/web-1`: defined already in a document 2, which counts; remove one \
                 of them",
            ]
        );
        assert_eq!((whole.objects.count(ObjectKind::Service), whole.objects.count(ObjectKind::EndpointSlice)), (2, 2));
        let origins: Vec<_> = whole.objects.raw.values().map(|raw| &*raw.origin).collect();
        assert_eq!(origins, ["b document 2", "a document 1", "a document 2", "b document 4"]);
    }

    #[test]
    fn what_is_refused_hides_nothing() {
        let whole = merge([read("a", &service("web", "'x'")), read("b", &service("web", "80"))]);
        assert_eq!(whole.objects.services.len(), 1);
        assert!(whole.objects.raw.values().all(|raw| !raw.refused && &*raw.origin == "b document 1"));
        let whole = merge([read("a", &service("web", "80")), read("b", &service("web", "'x'"))]);
        assert_eq!(whole.objects.services.values().next().unwrap().ports[0].port, 80);
    }

    #[test]
    fn the_whole_is_complete_when_every_part_is() {
        let part = |complete| Snapshot { complete, ..Snapshot::default() };
        assert!(merge([part(true), part(true)]).complete && merge([]).complete);
        assert!(!merge([part(false), part(true)]).complete && !merge([part(true), part(false)]).complete);
    }
}

//! In which families a Service has its ClusterIPs, as the API server would decide.

use super::settings::Settings;
use crate::model::{AddressFamily, FamilyPolicy, Problem, Service};
use crate::resolve::at;

/// The families of a Service, the primary one first; empty if nothing says any.
pub fn families(service: &Service, settings: &Settings, problems: &mut Vec<Problem>) -> Vec<AddressFamily> {
    let there = settings.families();
    let mut families = service.families.clone();
    for ip in &service.cluster_ips {
        if !families.contains(&AddressFamily::of(*ip)) {
            families.push(AddressFamily::of(*ip));
        }
    }
    if there.is_empty() {
        return families;
    }
    if families.is_empty() {
        families.extend(there.first());
    }
    let second = there.iter().find(|family| !families.contains(family));
    match service.family_policy {
        None | Some(FamilyPolicy::SingleStack) => {}
        Some(FamilyPolicy::PreferDualStack) => families.extend(second),
        Some(FamilyPolicy::RequireDualStack) => {
            families.extend(second);
            if families.len() < 2 {
                let text = "found RequireDualStack, but `cluster-ip-range` has networks of one family only; the Service \
                            works in that one";
                problems.push(Problem::error(at(service, "spec.ipFamilyPolicy", text)));
            }
        }
    }
    families
}

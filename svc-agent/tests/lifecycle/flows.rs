//! The flow tables of a running agent: what it shows, and what it lets go.

use aya::maps::{HashMap, Map, MapData};
use svc_common::flow::partner_key;
use svc_common::maps::{Flow, Tuple, flow_flags, flow_state};
use svc_common::net::Be16;

use super::world::{Agent, World, able, until};

type Table = HashMap<MapData, Tuple<[u8; 4]>, Flow<[u8; 4]>>;

fn table(world: &World, name: &str) -> Table {
    let map = Map::from_map_data(MapData::from_pin(world.map(name)).unwrap()).unwrap();
    HashMap::try_from(map).unwrap()
}

/// A connection from the client's port `port`, last seen at `seen_s`.
fn insert(table: &mut Table, port: u16, state: u8, seen_s: (u32, u32)) -> (Tuple<[u8; 4]>, Tuple<[u8; 4]>) {
    let key = Tuple {
        src: [192, 0, 2, 9],
        dst: [10, 96, 0, 1],
        sport: Be16::from_host(port),
        dport: Be16::from_host(80),
        proto: 6,
        pad: [0; 3],
    };
    let forward = Flow {
        src: key.src,
        dst: [10, 1, 0, 5],
        sport: key.sport,
        dport: Be16::from_host(8080),
        state,
        seen_s: seen_s.0,
        packets: 7,
        ..Flow::default()
    };
    let back = partner_key(&forward, key.proto);
    let reverse = Flow {
        src: key.dst,
        dst: key.src,
        sport: key.dport,
        dport: key.sport,
        flags: flow_flags::REVERSE | flow_flags::EGRESS,
        state,
        seen_s: seen_s.1,
        packets: 5,
        ..Flow::default()
    };
    table.insert(key, forward, 0).unwrap();
    table.insert(back, reverse, 0).unwrap();
    (key, back)
}

#[test]
fn b21_what_is_over_goes_in_both_directions_and_the_rest_stays() {
    if !able("b21_what_is_over_goes_in_both_directions_and_the_rest_stays") {
        return;
    }
    let world = World::new();
    let agent = world.start(&[]);
    let mut flows = table(&world, "FLOWS_V4");
    let established = flow_state::ESTABLISHED | flow_state::REPLIED;
    let now = now_s(&agent, &mut flows);
    let ago = |seconds: u32| now.wrapping_sub(seconds);
    let old = insert(&mut flows, 1, established, (ago(8_100), ago(8_100)));
    let young = insert(&mut flows, 2, established, (ago(7_000), ago(7_000)));
    let one_sided = insert(&mut flows, 3, established, (ago(9_000), ago(10)));
    let reset = insert(&mut flows, 4, established | flow_state::RST, (ago(60), ago(60)));
    let here = |flows: &Table, (key, back): &(Tuple<[u8; 4]>, Tuple<[u8; 4]>)| {
        (flows.get(key, 0).is_ok(), flows.get(back, 0).is_ok())
    };
    until("what is over is gone", || here(&flows, &old) == (false, false) && here(&flows, &reset) == (false, false));
    assert_eq!(here(&flows, &young), (true, true));
    assert_eq!(here(&flows, &one_sided), (true, true), "the other direction was seen 10 s ago");

    let seven = shown(&agent, "192.0.2.9:2").unwrap();
    assert_eq!((&seven["vip"], &seven["backend"]), (&"10.96.0.1:80".into(), &"10.1.0.5:8080".into()));
    assert_eq!((&seven["forward"]["packets"], &seven["reverse"]["packets"]), (&7.into(), &5.into()));
    let idle = seven["idleSeconds"].as_u64().unwrap();
    assert!((6_990..7_100).contains(&idle), "{idle}");
}

/// The agent's clock: how long ago it says that the time zero was.
fn now_s(agent: &Agent, flows: &mut Table) -> u32 {
    let mut now_s = None;
    until("the agent shows a connection that was never seen", || {
        // The agent may take it away before it is asked.
        let (key, back) = insert(flows, 9, 0, (0, 0));
        now_s = shown(agent, "192.0.2.9:9").and_then(|flow| flow["idleSeconds"].as_u64());
        let _gone = (flows.remove(&key), flows.remove(&back));
        now_s.is_some()
    });
    u32::try_from(now_s.unwrap()).unwrap()
}

fn shown(agent: &Agent, client: &str) -> Option<serde_json::Value> {
    let list = agent.json(&["get", "flows"]);
    let items = list["items"].as_array().or(list.as_array()).unwrap();
    items.iter().find(|flow| flow["client"] == client).cloned()
}

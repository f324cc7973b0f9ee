//! temp
mod cache;
mod properties;
mod rules;
mod scenario;
mod state;
mod steps;

use rules::Rule;
use scenario::*;
use stateright::{Checker, HasDiscoveries, Model};

const PLAIN: Op = Op::Put(Shape::Plain);
const RICH: Op = Op::Put(Shape::Rich);
const DEL: Op = Op::Put(Shape::Absent);
const DELTA: Op = Op::Delta(Shape::Rich);

fn run(sc: Scenario) {
    let name = sc.name;
    let t = std::time::Instant::now();
    let c = sc.checker().threads(2).timeout(std::time::Duration::from_secs(20)).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!("{name}: done={} {} {} depth {} {:?}", t.elapsed().as_secs()<20, c.unique_state_count(), c.state_count(), c.max_depth(), t.elapsed());
    for (name, path) in c.discoveries() {
        if name.starts_with("I") || name.starts_with("exact") {
            println!("   !! {name}: {:?}", path.into_actions());
        } else { println!("   ok {name}"); }
    }
}
fn s(op: Op) -> Work { Work::batch(Some(op), None) }
fn c(op: Op) -> Work { Work::batch(None, Some(op)) }

#[test]
fn t1() {
    let all = Faults { content: 1, companion: 1, repeat: 1, death: 1, drop_key: 1, flush: 1, invalidate: 1, rollback: 1, join: 1, late_begin: 1, fence: 1 };
    let one = Faults { content: 1, companion: 1, repeat: 1, death: 1, ..Faults::default() };
    let init = [Shape::Plain, Shape::Rich];
    run(Scenario::new("string A all", init).writers(&[s(PLAIN), s(PLAIN)]).readers(&[1, 1]).faults(all));
    run(Scenario::new("string B all", init).writers(&[s(PLAIN), s(RICH)]).readers(&[1, 1]).faults(all).eviction(Eviction::Any));
    run(Scenario::new("string delta B all", init).writers(&[s(DEL), s(DELTA)]).readers(&[1, 1]).faults(all).eviction(Eviction::Any));
    run(Scenario::new("coll B all", init).writers(&[c(DELTA), c(DELTA)]).readers(&[2, 2]).faults(all).eviction(Eviction::Any));
    run(Scenario::new("u,u A", init).writers(&[Work::unit(PLAIN, DELTA), Work::unit(PLAIN, DELTA)]).readers(&[1, 2]).faults(one));
    run(Scenario::new("u,u A flush", init).writers(&[Work::unit(PLAIN, DELTA), Work::unit(PLAIN, DELTA)]).readers(&[1, 2]).faults(Faults{flush:1,fence:1,..one}));
    run(Scenario::new("u,s,c A", init).writers(&[Work::unit(PLAIN, DELTA), s(PLAIN), c(DELTA)]).readers(&[1, 2]).faults(one));
    run(Scenario::new("u,rw A", init).writers(&[Work::unit(PLAIN, DELTA), Work::unit(PLAIN, Op::Read)]).readers(&[3, 2]).faults(one));
    run(Scenario::new("u,b A all -drop", init).writers(&[Work::unit(PLAIN, DELTA), Work::batch(Some(PLAIN), Some(DELTA))]).readers(&[1]).faults(Faults{drop_key:0,..all}));
    let _ = Rule::BeginHides;
}

use super::*;

fn instance_of(id: &str, millis: u64) -> Arc<Instance> {
    let instance = Instance::new("greeter", 80).and_then(|i| i.with_id(id)).unwrap();
    Arc::new(instance.with_generation(Generation::new(millis, 0)))
}

fn instance(millis: u64, revision: u64) -> Arc<Instance> {
    let instance = Instance::new("greeter", 80).and_then(|i| i.with_id("a")).unwrap();
    Arc::new(instance.with_generation(Generation::new(millis, revision)))
}

fn shown(state: &ScopeState) -> Vec<String> {
    state
        .snapshot()
        .iter()
        .map(|i| i.generation().to_string())
        .collect()
}

#[test]
fn c2_own_publications_lie_over_what_the_backend_says() {
    let mut overlay = Overlay::default();
    let mut state = ScopeState::new(Scope::All, true, Arc::default(), &overlay);
    let own = instance(5, 1);
    overlay.publish(own.clone());
    state.show(own.key(), &overlay);
    assert_eq!(shown(&state), ["5.1"]);
    state.apply(Update::Upsert(instance(5, 0)), &mut overlay);
    assert_eq!(shown(&state), ["5.1"], "a lower generation is not shown");
    state.apply(Update::Reset(Vec::new()), &mut overlay);
    assert_eq!(shown(&state), ["5.1"], "nor is a reset without it");
    state.apply(Update::Upsert(instance(6, 0)), &mut overlay);
    assert_eq!(shown(&state), ["6.0"], "a later owner is");
}

#[test]
fn c2_no_ghost_after_withdrawal() {
    let mut overlay = Overlay::default();
    let mut state = ScopeState::new(Scope::All, true, Arc::default(), &overlay);
    let own = instance(5, 1);
    state.apply(Update::Upsert(own.clone()), &mut overlay);
    overlay.publish(own.clone());
    overlay.withdraw(&own);
    state.show(own.key(), &overlay);
    assert!(shown(&state).is_empty());
    state.apply(Update::Upsert(own.clone()), &mut overlay);
    assert!(shown(&state).is_empty(), "an echo stays hidden");
    state.apply(Update::Upsert(instance(9, 0)), &mut overlay);
    assert_eq!(shown(&state), ["9.0"], "a new registration is shown");
    state.apply(
        Update::Remove(own.service().clone(), own.id().clone()),
        &mut overlay,
    );
    state.apply(Update::Upsert(own.clone()), &mut overlay);
    assert!(shown(&state).is_empty(), "that was the removal of another");
    state.apply(
        Update::Remove(own.service().clone(), own.id().clone()),
        &mut overlay,
    );
    state.apply(Update::Upsert(own), &mut overlay);
    assert_eq!(shown(&state), ["5.1"], "its own ends the hiding");
}

#[test]
fn c2_of_two_that_leave_one_after_the_other_none_is_a_ghost() {
    let mut overlay = Overlay::default();
    let mut state = ScopeState::new(Scope::All, true, Arc::default(), &overlay);
    let (first, second) = (instance(5, 0), instance(6, 0));
    for own in [&first, &second] {
        overlay.publish(own.clone());
        overlay.withdraw(own);
    }
    state.apply(Update::Upsert(second.clone()), &mut overlay);
    let key = second.key();
    state.apply(Update::Remove(key.service.clone(), key.id.clone()), &mut overlay);
    state.apply(Update::Upsert(first.clone()), &mut overlay);
    assert!(shown(&state).is_empty(), "the first is still on its way out");
    state.apply(Update::Remove(key.service.clone(), key.id.clone()), &mut overlay);
    assert!(overlay.hides_nothing(), "both are confirmed");
}

#[test]
fn c2_withdrawn_while_on_its_way_it_hides_itself_and_nobody_else() {
    let mut overlay = Overlay::default();
    let mut state = ScopeState::new(Scope::All, true, Arc::default(), &overlay);
    state.apply(Update::Upsert(instance(5, 0)), &mut overlay);
    let own = instance(7, 0);
    overlay.withdraw(&own);
    overlay.publish(own.clone());
    state.show(own.key(), &overlay);
    assert_eq!(shown(&state), ["5.0"], "another owner stays");
    state.apply(Update::Upsert(own), &mut overlay);
    assert!(shown(&state).is_empty(), "an echo stays hidden");
    let next = instance(8, 0);
    overlay.publish(next.clone());
    state.show(next.key(), &overlay);
    assert_eq!(shown(&state), ["8.0"], "a new registration is shown");
    overlay.withdraw(&next);
    state.apply(
        Update::Remove(next.service().clone(), next.id().clone()),
        &mut overlay,
    );
    state.apply(Update::Upsert(next), &mut overlay);
    assert!(shown(&state).is_empty(), "the removal was of the one before");
}

#[test]
fn c8_a_lower_generation_is_dropped_but_not_that_of_a_foreign_writer() {
    let mut overlay = Overlay::default();
    let mut state = ScopeState::new(Scope::All, true, Arc::default(), &overlay);
    state.apply(Update::Upsert(instance(5, 3)), &mut overlay);
    state.apply(Update::Upsert(instance(5, 2)), &mut overlay);
    assert_eq!(shown(&state), ["5.3"]);
    state.apply(Update::Upsert(instance(0, 0)), &mut overlay);
    assert_eq!(shown(&state), ["0.0"]);
}

#[test]
fn c7_an_outage_keeps_the_last_state() {
    let mut overlay = Overlay::default();
    let mut state = ScopeState::new(Scope::All, true, Arc::default(), &overlay);
    state.apply(Update::Upsert(instance(5, 3)), &mut overlay);
    state.apply(Update::Synced, &mut overlay);
    state.apply(Update::Stale(Outage::now(crate::Error::Closed)), &mut overlay);
    let snapshot = state.snapshot();
    assert!(snapshot.stale().is_some() && snapshot.len() == 1);
    state.apply(Update::Reset(Vec::new()), &mut overlay);
    assert!(state.snapshot().stale().is_none() && state.snapshot().is_empty());
}

#[test]
fn what_the_backend_says_comes_back_where_the_overlay_goes() {
    let mut overlay = Overlay::default();
    let mut state = ScopeState::new(Scope::All, true, Arc::default(), &overlay);
    let (own, said) = (instance(5, 1), instance(5, 0));
    state.apply(Update::Upsert(said.clone()), &mut overlay);
    overlay.publish(own.clone());
    state.show(own.key(), &overlay);
    assert_eq!(shown(&state), ["5.1"]);
    overlay.yield_to_later(&own);
    state.show(own.key(), &overlay);
    assert_eq!(shown(&state), ["5.0"]);
    assert!(state.overlaid.is_empty(), "only what is overlaid is kept twice");
}

#[test]
fn nothing_is_shown_anew_where_nothing_has_changed() {
    let mut overlay = Overlay::default();
    let mut state = ScopeState::new(Scope::All, true, Arc::default(), &overlay);
    state.apply(Update::Upsert(instance(5, 1)), &mut overlay);
    let first = state.take_snapshot().expect("it has changed");
    assert!(state.take_snapshot().is_none());
    state.apply(Update::Upsert(instance(5, 0)), &mut overlay);
    state.apply(
        Update::Remove("other".parse().unwrap(), "a".parse().unwrap()),
        &mut overlay,
    );
    assert!(state.take_snapshot().is_none());
    state.apply(Update::Reset(vec![instance(5, 1)]), &mut overlay);
    assert!(state.take_snapshot().is_none(), "the same again");
    let all = vec![instance(5, 1), instance_of("b", 1)];
    state.apply(Update::Reset(all), &mut overlay);
    let again = state.take_snapshot().expect("another has come");
    assert!(Arc::ptr_eq(&first[0], &again[0]), "what is the same is kept");
}

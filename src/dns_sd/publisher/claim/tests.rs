use super::*;

fn full(name: &str) -> Name {
    Name::of([name, "_http", "_tcp", "local"])
}

fn claim(host: &str, now: Instant) -> Claim {
    Claim::new(
        full("page"),
        (*b"\x03a=b").into(),
        Name::of([host, "local"]),
        80,
        now,
    )
}

/// The next packet of a claim, as others read it, and when it is sent.
fn next(claim: &mut Claim) -> Option<(Instant, Said)> {
    let at = claim.next()?;
    let mut sent = None;
    claim.poll(at, |packet| {
        sent = Reader.read_query(packet);
        1
    });
    Some((at, sent?))
}

fn has(host: &str) -> Said {
    let data = Data::Server {
        host: Name::of([host, "local"]),
        port: 80,
    };
    Said::Have(vec![Record {
        name: full("PAGE"),
        ttl: 120,
        flushes: true,
        data,
    }])
}

#[tokio::test(start_paused = true)]
async fn a_name_that_nobody_has_is_held_after_three_questions() {
    let now = Instant::now();
    let mut claim = claim("a", now);
    let mut asked = Vec::new();
    while let Some((at, said)) = next(&mut claim) {
        assert!(
            matches!(&said, Said::Want(records) if records.len() == 2),
            "{said:?}"
        );
        // It hears itself, too.
        assert!(!claim.handle(&said, at));
        asked.push(at - now);
    }
    assert!(claim.is_held() && asked.len() == 3 && asked[0] < PROBE_EVERY);
    assert_eq!(asked[2] - asked[0], 2 * PROBE_EVERY);
    assert!(!claim.handle(&has("a"), now));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_over_a_name_that_is_held_is_decided_by_asking_again() {
    let now = Instant::now();
    for (other, is_earlier) in [("b", true), ("0", false)] {
        let mut claim = claim("a", now);
        while next(&mut claim).is_some() {}
        assert!(claim.is_held());
        assert!(!claim.handle(&has(other), now) && !claim.is_held());
        // An answer before it has asked counts for nothing, since anybody can give it.
        assert!(!claim.handle(&has(other), now));
        let (at, _) = next(&mut claim).unwrap();
        // The one with the earlier data gives way, and the other one keeps the name once it has.
        assert_eq!(claim.handle(&has(other), at), is_earlier);
        if !is_earlier {
            while next(&mut claim).is_some() {}
            assert!(claim.is_held());
            // One that has it and does not give way keeps it.
            claim.probe_again(now);
            let gives_up = (0..3).filter(|_| {
                let (at, _) = next(&mut claim).unwrap();
                claim.handle(&has(other), at)
            });
            assert_eq!(gives_up.count(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_nobody_can_hear_does_not_count() {
    let mut claim = claim("a", Instant::now());
    for _ in 0..10 {
        let at = claim.next().unwrap();
        claim.poll(at, |_| 0);
    }
    assert!(!claim.is_held());
    assert_eq!(std::iter::from_fn(|| next(&mut claim)).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn of_two_that_ask_at_the_same_time_one_gets_it() {
    for _ in 0..20 {
        let now = Instant::now();
        let mut both = [claim("a", now), claim("b", now)];
        let mut taken = [false, false];
        while both
            .iter()
            .zip(taken)
            .any(|(claim, taken)| !claim.is_held() && !taken)
        {
            let due = |at: usize| both[at].next().filter(|_| !taken[at]);
            let at = usize::from(due(0).is_none_or(|first| due(1).is_some_and(|second| second < first)));
            let Some(when) = both[at].next() else { break };
            let Some((_, said)) = next(&mut both[at]) else {
                continue;
            };
            // The daemon of one who has it answers.
            let answer = both[1 - at].is_held().then(|| has(["b", "a"][at]));
            both[1 - at].handle(&said, when);
            taken[at] |= answer.is_some_and(|answer| both[at].handle(&answer, when));
        }
        let held = both.iter().filter(|claim| claim.is_held()).count();
        assert_eq!((held, taken.iter().filter(|taken| **taken).count()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_had_is_given_up_and_the_next_one_claimed() {
    let now = Instant::now();
    let mut claim = claim("a", now);
    let (at, _) = next(&mut claim).unwrap();
    assert!(claim.handle(&has("A-host"), at));
    claim.rename(full("page (2)"), now);
    assert!(!claim.handle(&has("b"), now), "it is no longer of this name");
    for n in 0..MANY_CONFLICTS {
        claim.rename(full(&format!("page ({})", n + 3)), now);
    }
    assert_eq!(claim.next(), Some(now + AFTER_MANY));
}

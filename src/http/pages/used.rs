//! What a simulator was used for, as pictures: its traffic, and what of its CapabilityStatement was exercised.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde_json::{Value, json};

use super::super::App;
use super::super::show::{self, Bar};
use super::super::usage::{busy, covered};
use super::page;
use crate::sim::usage::{MINUTES, Minute, Sight};
use crate::simdb::SimId;

/// `/sims/{id}/usage`.
pub async fn usage(app: Data<App>, id: Path<String>) -> HttpResponse {
    page(app, move |app| {
        let id: SimId = id.parse()?;
        let sim = app.registry.get(&id)?;
        let sight = sim.usage.sight();
        let values = json!({"id": id.as_str(), "coverage": covered(&sim)?, "traffic": busy(&sight), "minutes": minutes(&sight, sim.now_ms()), "durations": durations(&sight)});
        Ok(app.pages.render(200, "usage.html", values))
    })
    .await
}

/// The last hour, minute by minute.
fn minutes(sight: &Sight, now_ms: i64) -> Value {
    let now = now_ms.div_euclid(60_000);
    let first = now - i64::try_from(MINUTES).unwrap_or_default() + 1;
    let bar = |minute: i64| {
        let of = sight.minutes.iter().find(|m| m.minute == minute).copied().unwrap_or(Minute { minute, ..Minute::default() });
        let [none, _, ok, moved, refused, failed] = of.classes;
        let title =
            format!("{}: {ok} answered 2xx, {moved} 3xx, {refused} 4xx, {failed} 5xx, {none} not answered", &crate::clock::instant(minute * 60_000)[11..16]);
        Bar { title, parts: vec![("ok", ok + moved), ("refused", refused), ("failed", failed + none)] }
    };
    show::bars("Requests of the last hour by minute and status", &(first..=now).map(bar).collect::<Vec<_>>()).into()
}

/// How many took how long.
fn durations(sight: &Sight) -> Value {
    let last = sight.durations.iter().rposition(|n| *n > 0).unwrap_or_default();
    let bar = |(n, count): (usize, &u64)| Bar { title: format!("{count} within {} µs", 1_u64 << n), parts: vec![("ok", *count)] };
    show::bars(
        "Requests by how long they took, each bar twice as long as the one before",
        &sight.durations[..=last].iter().enumerate().map(bar).collect::<Vec<_>>(),
    )
    .into()
}

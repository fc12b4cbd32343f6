//! What happens, as it happens: server-sent events.

use crate::{
    problem::{Asked, Problem},
    server::Gateway,
};
use adit_control::status::Event;
use axum::{
    extract::State,
    response::sse::{self, KeepAlive, Sse},
};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use std::{convert::Infallible, time::Duration};
use tokio::{sync::broadcast::error::RecvError, time::sleep};
use utoipa::IntoParams;

/// How long one stream lasts: a token that has ended sees no more than this. Browsers come again by themselves.
const LONGEST: Duration = Duration::from_secs(3600);

/// How often a sign of life is sent.
const ALIVE: Duration = Duration::from_secs(15);

/// Which events.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Only those of this tunnel.
    tunnel: Option<String>,
}

/// What happens to the tunnels from now on, as server-sent events whose data is an `Event` each. Who does not keep up is told
/// how many events he has lost. A stream ends after an hour.
#[utoipa::path(get, path = "/v1/events", params(EventsQuery),
    responses((status = 200, body = Event, content_type = "text/event-stream"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such tunnel.")))]
pub(super) async fn follow(
    State(gateway): State<Gateway>,
    Asked(query): Asked<EventsQuery>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let events = gateway.control.events();
    if let Some(tunnel) = &query.tunnel
        && gateway.control.log(tunnel).await?.is_none()
    {
        return Err(Problem::no_tunnel(tunnel));
    }
    let next = |mut events: tokio::sync::broadcast::Receiver<Event>| async {
        match events.recv().await {
            Ok(event) => Some((event, events)),
            Err(RecvError::Lagged(count)) => Some((Event::Lost { count }, events)),
            Err(RecvError::Closed) => None,
        }
    };
    let stream = stream::unfold(events, next)
        .filter_map(move |event| {
            let wanted = query.tunnel.is_none()
                || event.tunnel().is_none()
                || event.tunnel() == query.tunnel.as_deref();
            let data = wanted.then(|| sse::Event::default().json_data(&event).ok()).flatten();
            std::future::ready(data.map(Ok))
        })
        .take_until(sleep(LONGEST));
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(ALIVE)))
}

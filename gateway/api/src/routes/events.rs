//! What happens, as it happens: server-sent events.

use crate::{
    auth::Caller,
    problem::{Asked, Problem},
    server::Gateway,
};
use adit_control::{resource::Tunnel, status::Event};
use axum::{
    Extension,
    extract::State,
    response::sse::{self, KeepAlive, Sse},
};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use std::{convert::Infallible, time::Duration};
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        watch,
    },
    time::sleep,
};
use utoipa::IntoParams;

/// How long one stream lasts. Browsers come again by themselves.
const LONGEST: Duration = Duration::from_secs(3600);

/// How often a sign of life is sent.
const ALIVE: Duration = Duration::from_secs(15);

/// Which events.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Only those of this tunnel, by its id or its name, whatever it is called later.
    tunnel: Option<String>,
    /// Only those of the gateway itself, or together with `tunnel` those too.
    #[serde(default)]
    gateway: bool,
}

/// What happens to the tunnels and to the gateway from now on, as server-sent events whose data is an `Event` each. Who does not keep up is told
/// how many events he has lost. A stream ends after an hour, and with the token that opened it.
#[utoipa::path(get, path = "/v1/events", params(EventsQuery),
    responses((status = 200, body = Event, content_type = "text/event-stream"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such tunnel.")))]
pub(super) async fn follow(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<EventsQuery>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let events = gateway.control.events();
    // Events have its name.
    let mut tunnel = match &query.tunnel {
        Some(which) => Some(gateway.control.store().get::<Tunnel>(which).await?.meta.name),
        None => None,
    };
    let next = |(mut events, mut closing): (broadcast::Receiver<Event>, watch::Receiver<()>)| async {
        let event = tokio::select! {
            // What has happened before the end is told first.
            biased;
            event = events.recv() => event,
            _ = closing.changed() => return None,
        };
        match event {
            Ok(event) => Some((event, (events, closing))),
            Err(RecvError::Lagged(count)) => Some((Event::Lost { count }, (events, closing))),
            Err(RecvError::Closed) => None,
        }
    };
    let stream = stream::unfold((events, gateway.closing.subscribe()), next)
        .filter_map(move |event| {
            let wanted = match &event {
                Event::Lost { .. } => true,
                _ if tunnel.is_none() && !query.gateway => true,
                Event::Gateway { .. } => query.gateway,
                of_tunnel => tunnel.is_some() && of_tunnel.tunnel() == tunnel.as_deref(),
            };
            if let Event::Renamed { to, .. } = &event
                && wanted
                && tunnel.is_some()
            {
                tunnel = Some(to.clone());
            }
            let data = wanted.then(|| sse::Event::default().json_data(&event).ok()).flatten();
            std::future::ready(data.map(Ok))
        })
        .take_until(sleep(LONGEST))
        .take_until(async move {
            match caller.token {
                Some(token) => gateway.tokens.ended(token).await,
                None => std::future::pending().await,
            }
        });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(ALIVE)))
}

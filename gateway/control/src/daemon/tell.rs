//! What people see of everything.

use super::run::Daemon;
use crate::status::{
    ExchangeCount, GatewayStatus, IkeStatus, PortStatus, RoundsStatus, Status, TunnelStatus, timestamp,
};
use adit_ike::{Endpoint, ExchangeResult, ExchangeType, TunnelId};

/// Tunnels that are told of before IKE has its turn.
pub(super) const AT_A_TIME: usize = 256;

impl Daemon {
    /// What there is to wait for, as long as no data plane is met.
    pub(super) fn waiting_for(&self) -> String {
        if !self.options.config.gateway.is_there() {
            return "waits for a gateway to be created: `adit gateway create NAME address=IP wan=INTERFACE \
                    lan=INTERFACE`, or a whole configuration with `adit apply -f FILE`"
                .into();
        }
        format!("waits for the data plane: no maps are pinned in {}", self.options.bpf_dir.display())
    }

    /// Everything at this moment, but for those tunnels whose numbers stand beside it: thousands take longer than IKE waits.
    pub(super) fn status(&self) -> (Status, Vec<TunnelId>) {
        let gateway = &self.options.config.gateway;
        let data_plane = self.data_plane.as_ref();
        let (first, rest) = self.order.split_at(self.order.len().min(AT_A_TIME));
        let tunnels = self.statuses(first);
        let groups = self.group_status();
        let ports = data_plane.and_then(|d| d.maps.verdicts().ok()).unwrap_or_default();
        let status = Status {
            gateway: GatewayStatus {
                name: gateway.name.clone(),
                addresses: gateway.addresses.clone(),
                version: env!("CARGO_PKG_VERSION").into(),
                started_at: timestamp(self.started),
                waiting_for: (self.data_plane.is_none() || !gateway.is_there()).then(|| self.waiting_for()),
                refused_reload: self.refused_reload.clone(),
            },
            tunnels,
            groups,
            ike: IkeStatus { rounds: self.pace.status(), ..ike_status(&self.endpoint) },
            ports: ports
                .into_iter()
                .map(|(ifindex, verdicts)| PortStatus {
                    interface: self.interfaces.name(ifindex),
                    mode: None,
                    reason: None,
                    nic: None,
                    verdicts: verdicts.into_iter().map(|(v, n)| (v.label().to_owned(), n)).collect(),
                })
                .collect(),
            // It is asked by whoever shows this.
            data_plane: None,
            api: None,
        };
        (status, rest.to_vec())
    }

    /// Some tunnels at this moment, those of them that are there.
    pub(super) fn statuses(&self, some: &[TunnelId]) -> Vec<TunnelStatus> {
        let data_plane = self.data_plane.as_ref();
        let known = data_plane.map(|d| d.sadb.totals_of(&d.maps));
        let totals = |id| match &known {
            Some(totals_of) => totals_of(id),
            None => self.totals.get(&id).copied().unwrap_or_default(),
        };
        let doomed = self.doomed();
        let mut tunnels = Vec::with_capacity(some.len());
        tunnels.extend(some.iter().filter_map(|id| self.tunnels.get(*id)).map(|t| {
            let children = data_plane.map(|d| d.sadb.counters(&d.maps, t.id())).unwrap_or_default();
            let status = self.resource_status(t.id(), &doomed);
            TunnelStatus { status, ..t.status(totals(t.id()), &children) }
        }));
        tunnels
    }
}

fn ike_status(endpoint: &Endpoint) -> IkeStatus {
    let counters = endpoint.counters();
    let result = |r| match r {
        ExchangeResult::Done => "done",
        ExchangeResult::Refused => "refused",
        ExchangeResult::TimedOut => "timed_out",
    };
    let exchanges =
        ExchangeType::ALL.into_iter().flat_map(|e| ExchangeResult::ALL.into_iter().map(move |r| (e, r)));
    IkeStatus {
        received: counters.received,
        sent: counters.sent,
        retransmissions: counters.retransmissions,
        dropped: counters.drops().into_iter().map(|(cause, n)| (cause.to_owned(), n)).collect(),
        exchanges: exchanges
            .map(|(e, r)| ExchangeCount {
                exchange: e.to_string().to_lowercase(),
                result: result(r).into(),
                count: counters.exchanges(e, r),
            })
            .collect(),
        rounds: RoundsStatus::default(),
    }
}

//! The way of packets through two Adits: every one to the right place, in the right size and order.

mod arms;
mod headers;
mod path_mtu;
mod route_mode;
mod segments;
mod tags;

use adit_tests::scenario::{self, Scenario};

fn main() -> std::process::ExitCode {
    scenario::main(vec![
        Scenario::new("path_mtu_is_learned_from_who_saw_our_packets", path_mtu::native),
        Scenario::new("path_mtu_is_not_learned_from_strangers", path_mtu::strangers),
        Scenario::new("path_mtu_is_learned_in_udp_behind_nat", path_mtu::in_udp),
        Scenario::new("path_mtu_is_learned_over_ipv6", path_mtu::over_ipv6),
        Scenario::new("what_every_ipv6_link_takes_passes_a_narrower_path", path_mtu::least_of_ipv6),
        Scenario::new("what_the_lan_does_not_take_is_cut_or_told", path_mtu::narrow_lan),
        Scenario::new("one_armed_packets_come_and_go_by_one_interface", arms::one_armed),
        Scenario::new("several_lans_share_a_tunnel", arms::two_lans),
        Scenario::new("route_mode_takes_any_source_to_its_destinations", route_mode::both),
        Scenario::new("route_mode_narrowed_by_the_peer_sends_no_more", route_mode::narrowed),
        Scenario::new("ttl_dscp_ecn_and_df_are_as_rfc_4301_and_6040_say", headers::of_both_packets),
        Scenario::new("a_priority_tag_hides_nothing_and_a_vlan_is_not_ours", tags::looked_behind),
        Scenario::new("segments_of_hosts_fit_the_tunnel", segments::of_hosts),
        Scenario::new("tcp_of_the_gateway_itself_fits_the_tunnel", segments::of_the_gateway),
        Scenario::new("checksums_left_to_a_nic_are_finished", headers::unfinished_checksums),
    ])
}

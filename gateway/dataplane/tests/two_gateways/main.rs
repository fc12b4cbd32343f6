//! Two gateways that seal and open for each other, with SAs written straight into their maps.

mod crossing;
mod hostile;
mod lab;
mod moving;
mod size;
mod tools;
mod waiting;

use adit_dataplane::{Config, Dataplane, Error, XdpMode};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

fn main() {
    let mut arguments = Arguments::from_args();
    // The cores are few and the timings are real.
    arguments.test_threads = Some(1);
    let usable = lab::isolate().and_then(|()| has_program());
    let tests: [(&'static str, fn()); 29] = [
        ("udp_and_tcp_cross_the_tunnel_both_ways", crossing::udp_and_tcp_cross),
        ("cbc_in_udp_encapsulation_crosses_too", crossing::cbc_crosses),
        ("chacha20_over_ipv6_with_extended_numbers_crosses", crossing::chacha_crosses),
        ("triple_des_in_udp_over_ipv6_crosses", crossing::triple_des_crosses),
        ("null_with_sha512_crosses", crossing::null_crosses),
        ("ah_crosses_with_its_longer_segments", crossing::ah_crosses),
        ("ah_over_ipv6_crosses_padded_to_eight_bytes", crossing::ah_v6_crosses),
        ("generic_mode_carries_the_same", crossing::generic_mode),
        ("two_workers_share_an_sa_over_two_queues", crossing::two_queues),
        ("flows_over_two_workers_stay_in_order", crossing::flows_in_order),
        ("a_port_that_vanishes_stops_neither_worker_nor_wan", moving::vanishing_port),
        ("replayed_and_corrupted_packets_are_dropped_and_counted", hostile::replay_and_corruption),
        ("what_an_sa_must_not_carry_is_dropped", hostile::forbidden),
        ("an_sa_that_was_freed_opens_nothing", hostile::freed),
        ("a_peer_that_moves_under_traffic_loses_nothing", moving::moved_peer),
        ("the_packet_that_asks_for_an_sa_waits_for_it", waiting::first_packet),
        ("what_waited_is_not_sealed_for_somebody_else", waiting::reused_policy),
        ("the_gateway_itself_is_reached_and_reaches", crossing::the_gateway_itself),
        ("what_does_not_fit_is_answered", size::too_big),
        ("what_does_not_fit_and_may_be_cut_is_cut", size::cut),
        ("what_comes_in_fragments_is_opened", size::fragmented),
        ("what_comes_in_fragments_may_be_long", size::long_fragmented),
        ("jumbo_frames_cross_and_are_cut_where_they_do_not_fit", size::jumbo),
        ("what_is_for_another_mac_address_is_not_sealed", hostile::other_mac),
        ("what_came_to_everybody_on_the_link_is_not_answered", hostile::link_broadcast),
        ("every_frame_comes_back_whatever_became_of_its_packet", moving::frames_come_back),
        ("a_neighbour_that_changes_its_mac_address_is_found_again", moving::moved_neighbour),
        ("a_restart_continues_every_sa_and_leaks_nothing", moving::restart),
        ("unload_leaves_nothing", moving::unload),
    ];
    let trials = tests.map(|(name, test)| {
        let usable = usable.clone();
        Trial::ignorable_test(name, move || match usable {
            Ok(()) => {
                test();
                Ok::<_, Failed>(Completion::Completed)
            }
            Err(reason) => Ok(Completion::ignored_with(reason)),
        })
    });
    libtest_mimic::run(&arguments, trials.into()).exit();
}

/// Whether this build embeds the program. Without an interface nothing else is touched.
fn has_program() -> Result<(), String> {
    let config = Config {
        bpf_dir: std::env::temp_dir(),
        ports: vec![],
        tun: String::new(),
        workers: None,
        max_sas: 1,
        mode: XdpMode::Auto,
        socket: None,
        gives_keys: false,
        crypto: None,
    };
    match Dataplane::start(config) {
        Err(e @ Error::NoProgram) => Err(e.to_string()),
        _ => Ok(()),
    }
}

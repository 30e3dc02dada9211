//! Calls that are left to an agent.

use super::*;

fn plan(profile: &Value) -> Result<SeccompPlan, PlanError> {
    compile(&Profile::read(profile)?, &x86_64(), "x")
}

fn notifying(more: Value) -> Value {
    let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent",
        "syscalls": [{"names": ["mkdir", "not_a_call"], "action": "SCMP_ACT_NOTIFY"}]});
    let more = more.as_object().unwrap().clone();
    profile.as_object_mut().unwrap().extend(more);
    profile
}

#[test]
fn a_rule_leaves_its_calls_to_the_agent_and_no_others() {
    let plan = plan(&notifying(json!({"listenerMetadata": "m"}))).unwrap();
    assert_eq!(verdict(&plan.program, "mkdir", &[]), USER_NOTIF);
    assert_eq!(verdict(&plan.program, "mkdirat", &[]), ALLOW);
    let listener = plan.listener.unwrap();
    assert_eq!(listener.path, std::path::Path::new("/run/agent"));
    assert_eq!(listener.metadata.as_deref(), Some("m"));
    assert_eq!(
        (listener.calls, listener.others),
        (vec!["mkdir".to_owned()], false)
    );
}

#[test]
fn the_default_may_be_left_to_the_agent() {
    let others = json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/run/agent",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]});
    let plan = plan(&others).unwrap();
    assert_eq!(verdict(&plan.program, "execve", &[]), USER_NOTIF);
    assert_eq!(verdict(&plan.program, "read", &[]), ALLOW);
    assert!(plan.listener.unwrap().others);
}

#[test]
fn whoever_leaves_calls_to_an_agent_names_it() {
    for path in [json!(null), json!("")] {
        let error = plan(&notifying(json!({"listenerPath": path}))).unwrap_err();
        assert_eq!(error.pointer, "/listenerPath", "{error}");
    }
}

#[test]
fn an_agent_that_is_asked_about_nothing_is_passed_over() {
    let cap = json!({"caps": ["CAP_SYS_BOOT"]});
    for rules in [
        json!([]),
        json!([{"names": ["not_a_call"], "action": "SCMP_ACT_NOTIFY"}]),
        json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY", "includes": cap}]),
    ] {
        let flags = [
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
            "SECCOMP_FILTER_FLAG_LOG",
        ];
        let profile = notifying(json!({"syscalls": rules, "flags": flags}));
        let plan = plan(&profile).unwrap();
        assert_eq!(plan.listener, None, "{profile}");
        // Without a listener the kernel refuses the one flag.
        assert_eq!(plan.flags, 2, "{profile}");
    }
    let flags = json!({"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]});
    assert_eq!(plan(&notifying(flags)).unwrap().flags, 32);
}

#[test]
fn littleboxs_init_asks_no_agent() {
    let of = |names: Value| {
        let rules = json!([{"names": names, "action": "SCMP_ACT_NOTIFY"}]);
        check_init(&plan(&notifying(json!({"syscalls": rules}))).unwrap())
    };
    of(json!(["mkdir", "execve", "write"])).unwrap();
    let error = of(json!(["mkdir", "wait4", "kill"])).unwrap_err();
    assert_eq!(error.pointer, "/syscalls");
    assert!(error.message.contains("for kill, wait4:"), "{error}");
    let others = notifying(json!({"defaultAction": "SCMP_ACT_NOTIFY"}));
    let error = check_init(&plan(&others).unwrap()).unwrap_err();
    assert_eq!(error.pointer, "/defaultAction");
}

//! Manifests that keep to every rule, for tests that break one.

use super::{
    super::manifest::{Manifest, read},
    RULES, Rule, Sources,
};

const TEXT: &str = r#"
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels: {pod-security.kubernetes.io/enforce: restricted}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: app, namespace: shop}
automountServiceAccountToken: false # account
---
apiVersion: v1
kind: ConfigMap
metadata: {name: app, namespace: shop}
data:
  millrace.toml: |
    # nothing secret
    [[topics]]
    name = "orders"
  users.xml: <millrace><query>GRANT SELECT ON shop.a</query></millrace>
---
apiVersion: v1
kind: ConfigMap
metadata: {name: dashboard, namespace: shop, labels: {grafana_dashboard: "1"}}
data:
  a.json: '{"title":"A"}'
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: app, namespace: shop}
spec:
  groups: [{name: a, rules: [{alert: Down, expr: up < 1}]}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: app, namespace: shop}
spec:
  maxUnavailable: 1
  selector: {matchLabels: {app: app}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: all, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress] # all
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: in, namespace: shop}
spec:
  podSelector: {matchLabels: {app: app}} # in
  ingress:
    - from: [{podSelector: {matchLabels: {app: job}}}]
      ports: [{port: 9400}] # in
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: shop}
spec:
  podSelector: {matchLabels: {app: job}}
  egress:
    - to: [{podSelector: {matchLabels: {app: app}}}]
      ports: [{port: 9400}] # out
---
apiVersion: kafka.strimzi.io/v1
kind: KafkaTopic
metadata: {name: orders, namespace: shop}
spec: {partitions: 12}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: app, namespace: shop}
spec:
  scaleTargetRef: {name: app}
  minReplicaCount: 1
  maxReplicaCount: 12
  fallback: {failureThreshold: 3, replicas: 1, behavior: currentReplicas}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: app
  namespace: shop # app
spec:
  strategy: {}
  template:
    metadata:
      labels: {app: app}
    spec:
      serviceAccountName: app
      automountServiceAccountToken: false # pod
      enableServiceLinks: false
      terminationGracePeriodSeconds: 45
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        seccompProfile: {type: RuntimeDefault}
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - topologyKey: kubernetes.io/hostname
              labelSelector: {matchLabels: {app: app}}
      topologySpreadConstraints:
        - topologyKey: topology.kubernetes.io/zone
          labelSelector: {matchLabels: {app: app}}
      containers:
        - name: app
          image: app:1.0
          args: [run]
          env:
            - {name: APP_PASSWORD, valueFrom: {secretKeyRef: {name: app-users, key: a}}}
          ports:
            - {name: http, containerPort: 9400}
          startupProbe: {httpGet: {path: /healthz, port: 9400}}
          livenessProbe: {httpGet: {path: /healthz, port: http}}
          readinessProbe: {httpGet: {path: /readyz, port: http}}
          resources:
            requests: {cpu: 100m, memory: 1Gi}
            limits: {cpu: "1", memory: 1Gi}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: config, mountPath: /etc/app}
      volumes:
        - name: config
          configMap: {name: app}
        - name: secrets
          projected: {sources: [{secret: {name: app-password, items: [{key: a, path: a}]}}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: job, namespace: shop}
spec:
  template:
    metadata:
      labels: {app: job}
      annotations: {millrace.dev/no-disruption-budget: it is run again}
    spec:
      serviceAccountName: app
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, runAsUser: 1, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: job
          image: app:1.0
          resources: {requests: {cpu: 1m, memory: 1Mi}, limits: {cpu: 2m, memory: 2Mi}}
          securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
"#;

/// What is sound.
pub(super) fn manifests() -> Vec<Manifest> {
    broken("", "")
}

/// What is sound but for one text that stands there.
pub(super) fn broken(from: &str, to: &str) -> Vec<Manifest> {
    assert!(TEXT.contains(from), "nothing to break: {from}");
    let text = if from.is_empty() { TEXT.to_owned() } else { TEXT.replacen(from, to, 1) };
    read(&text).unwrap()
}

/// What the sound manifests are compared with.
pub(super) fn sources() -> Sources {
    Sources {
        readme: "| `app:1.0` |\n| `app-users` |\n| `app-password` |".to_owned(),
        configuration: "# nothing secret\n[[topics]]\nname = \"orders\"\n".to_owned(),
        users:
            "<millrace><query>GRANT SELECT ON shop.a</query><query>GRANT ALL ON millrace_test_*.*</query></millrace>"
                .to_owned(),
        rules: "groups: [{name: a, rules: [{alert: Down, expr: up < 1}]}]".to_owned(),
        dashboards: vec![("a.json".to_owned(), "{\"title\":\"A\"}".to_owned())],
    }
}

/// A rule has to find something in these words.
pub(super) fn finds(rule: Rule, manifests: &[Manifest], what: &str) {
    let found = rule(manifests, &sources());
    assert!(found.iter().any(|finding| finding.contains(what)), "{what} is not among {found:?}");
}

#[test]
fn no_rule_finds_anything_in_what_is_sound() {
    for (name, rule) in RULES {
        assert_eq!(rule(&manifests(), &sources()), Vec::<String>::new(), "{name}");
    }
}

{#
  dbt run-operation mistral_status | mistral_wait | mistral_cost

  They cover every built model of the project that is materialized as mistral_batch or uses mistral_submit;
  --args '{models: [moods]}' selects some.
#}
{% macro mistral_status(models=none) %}
  {% for model, id in duckdb_mistral.mistral__submitted(models, ended=false) %}
    {% set jobs = run_query(
      "SELECT job_id, status, completed_requests, total_requests FROM mistral_batch_status(" ~ duckdb_mistral.mistral__literal(id) ~ ")") %}
    {% do duckdb_mistral.mistral__tell_jobs(model, jobs) %}
  {% else %}
    {% do log('Nothing is under way.', info=true) %}
  {% endfor %}
{% endmacro %}


{# Returns once every batch has ended; --args '{timeout_seconds: 600}' waits at most that long for each. #}
{% macro mistral_wait(models=none, timeout_seconds=none) %}
  {% for model, id in duckdb_mistral.mistral__submitted(models, ended=false) %}
    {% set jobs = run_query(
      "SELECT job_id, status, completed_requests, total_requests FROM mistral_batch_wait("
      ~ duckdb_mistral.mistral__literal(id) ~ ", timeout_seconds := " ~ duckdb_mistral.mistral__literal(timeout_seconds) ~ ")") %}
    {% do duckdb_mistral.mistral__tell_jobs(model, jobs) %}
  {% else %}
    {% do log('Nothing is under way.', info=true) %}
  {% endfor %}
{% endmacro %}


{# What the ended batches of each model cost, in US dollars at batch price. #}
{% macro mistral_cost(models=none) %}
  {% for model, id in duckdb_mistral.mistral__submitted(models, ended=true) %}
    {% set costs = run_query(
      "SELECT model, sum(answers)::BIGINT AS answers, coalesce(format('{:.6f}', sum(cost)), 'unknown') AS cost "
      ~ "FROM mistral_batch_cost(" ~ duckdb_mistral.mistral__literal(id) ~ ") GROUP BY model ORDER BY model") %}
    {% for cost in costs.rows %}
      {% do log(model ~ ': ' ~ id ~ ' on ' ~ cost['model'] ~ ', ' ~ cost['answers'] ~ ' answers, $' ~ cost['cost'], info=true) %}
    {% endfor %}
  {% else %}
    {% do log('No submitted batch has ended.', info=true) %}
  {% endfor %}
{% endmacro %}


{% macro mistral__tell_jobs(model, jobs) %}
  {% for job in jobs.rows %}
    {% do log(model ~ ': job ' ~ (job['job_id'] or '(none)') ~ ' is ' ~ job['status'] ~ ', ' ~ job['completed_requests']
              ~ ' of ' ~ job['total_requests'] ~ ' requests are done', info=true) %}
  {% endfor %}
{% endmacro %}


{# Pairs of a model's name and the id of one of its submissions, or of a job if this home does not know the submission:
   those that have ended, or those that some row still waits for. #}
{% macro mistral__submitted(models, ended) %}
  {% set names = [models] if models is string else models %}
  {% set submissions = {} %}
  {% for node in graph.nodes.values() if node.resource_type == 'model' and (names is none or node.name in names) %}
    {% set at = api.Relation.create(database=node.database, schema=node.schema, identifier=node.alias or node.name) %}
    {% set two_steps = 'macro.duckdb_mistral.mistral_submit' in node.depends_on.macros %}
    {% set at = at if two_steps else duckdb_mistral.mistral__state(at) %}
    {% if (two_steps or node.config.materialized == 'mistral_batch') and load_relation(at) %}
      {% set jobs = 'list(DISTINCT job_id)' if two_steps else 'coalesce(any_value(sent_jobs), [])' %}
      {% set found = run_query(
        "SELECT coalesce(to_json(list({'submission_id': submission_id, 'jobs': jobs}))::VARCHAR, '[]') FROM ("
        ~ "SELECT submission_id, " ~ jobs ~ " AS jobs FROM " ~ at
        ~ " WHERE submission_id IS NOT NULL " ~ ("" if two_steps or ended else "AND outcome = 'pending' ") ~ "GROUP BY submission_id ORDER BY submission_id)") %}
      {% for one in fromjson(found.columns[0].values()[0]) if one.submission_id not in submissions %}
        {% do submissions.update({one.submission_id: {'model': node.name, 'asked': one}}) %}
      {% endfor %}
    {% endif %}
  {% endfor %}
  {% set pairs = [] %}
  {% set asked = submissions.values() | map(attribute='asked') | list %}
  {% if not asked %}{% do return([]) %}{% endif %}
  {% for look in duckdb_mistral.mistral__call('mistral_dbt_look', {'submissions': asked, 'partial': true}) %}
    {% for id in (look.ids if look.ended else [] if ended else look.wait) %}
      {% do pairs.append((submissions[look.submission_id].model, id)) %}
    {% endfor %}
  {% endfor %}
  {% do return(pairs) %}
{% endmacro %}

{#
  A model that submits:

    {{ config(materialized='table') }}
    {{ duckdb_mistral.mistral_submit(ref('prompts'), system='Summarise in one sentence.') }}

  One row per job. `custom_id` names the column that tells the rows apart; everything else is an argument of
  mistral_batch_submit. Requests that were answered before are not sent again. Anything is sent only when dbt builds the
  model: not in compile, show or a unit test, with --empty, or for a source without rows.
#}
{% macro mistral_submit(relation, custom_id='custom_id') %}
  {% if not execute or flags.WHICH in ['compile', 'docs', 'generate', 'list', 'parse'] %}
    {% do return(duckdb_mistral.mistral__submit_call(relation, custom_id, kwargs)) %}
  {% endif %}
  {% if not duckdb_mistral.mistral__builds() or flags.EMPTY %}{% do return(duckdb_mistral.mistral__no_jobs()) %}{% endif %}
  {% if config.get('materialized') in ['view', 'ephemeral'] %}
    {% do exceptions.raise_compiler_error(
      "A model that submits must be a table: a view would submit whenever it is read. Put "
      ~ "config(materialized='table') into it. Nothing was sent.") %}
  {% endif %}
  {% if not relation.is_cte and run_query('SELECT 1 FROM ' ~ relation ~ ' LIMIT 1').rows | length == 0 %}
    {% do return(duckdb_mistral.mistral__no_jobs()) %}
  {% endif %}
  {% do return(duckdb_mistral.mistral__submit_call(relation, custom_id, kwargs)) %}
{% endmacro %}


{% macro mistral__submit_call(relation, custom_id, given) %}
  {% set source = duckdb_mistral.mistral__literal(duckdb_mistral.mistral__source(relation, custom_id)) %}
  {# Several models run on one file, so requests that one of them has answered cannot be left out. #}
  {% set several = given.model is sequence and given.model is not string %}
  {% set all = {'reuse': 'submission' if several else 'requests'} %}
  {% do all.update(given) %}
  {% do return('SELECT * FROM mistral_batch_submit(' ~ source ~ duckdb_mistral.mistral__arguments(all) ~ ')') %}
{% endmacro %}


{% macro mistral__no_jobs() %}
  {% do return(
    "SELECT NULL::VARCHAR AS submission_id, NULL::VARCHAR AS job_id, NULL::INTEGER AS part, NULL::VARCHAR AS status, "
    ~ "NULL::VARCHAR AS model, NULL::VARCHAR AS endpoint, NULL::BIGINT AS total_requests, NULL::BIGINT AS input_bytes, "
    ~ "NULL::BOOLEAN AS reused, NULL::TIMESTAMPTZ AS created_at WHERE false") %}
{% endmacro %}


{#
  The answers of the submissions in a model of jobs, to be put in brackets after FROM or JOIN:

    SELECT p.*, r.outcome, r.content
    FROM {{ ref('prompts') }} p JOIN ({{ duckdb_mistral.mistral_answers(ref('submitted')) }}) r USING (custom_id)

  While a batch runs, its rows have the outcome pending, and a warning from dbt says how far it is; while_running='wait'
  waits, and 'error' stops the model with the same sentence. In a unit test, the rows given for the model of jobs stand
  in for the answers.
#}
{% macro mistral_answers(submitted, while_running='keep', partial=false) %}
  {% if while_running not in ['keep', 'wait', 'error'] %}
    {% do exceptions.raise_compiler_error(
      "while_running must be 'keep', 'wait' or 'error', but is '" ~ while_running ~ "'.") %}
  {% endif %}
  {% if not execute %}{% do return('SELECT NULL AS custom_id') %}{% endif %}
  {% if model.resource_type == 'unit_test' %}
    {% do return(duckdb_mistral.mistral__no_answers() ~ ' UNION ALL BY NAME SELECT * FROM ' ~ submitted) %}
  {% endif %}
  {% set builds = duckdb_mistral.mistral__builds() %}
  {% set selects = [duckdb_mistral.mistral__no_answers()] %}
  {% for look in duckdb_mistral.mistral__look_at(submitted, partial, asking=builds) %}
    {% if look.ended %}
      {% if look.ids %}{% do selects.append(duckdb_mistral.mistral__results_of(look.ids, partial)) %}{% endif %}
    {% elif not builds %}
      {% do selects.append(duckdb_mistral.mistral__answers_so_far(look, partial)) %}
    {% elif while_running == 'wait' %}
      {% for id in look.wait %}
        {% do run_query('FROM mistral_batch_wait(' ~ duckdb_mistral.mistral__literal(id) ~ ')') %}
      {% endfor %}
      {% set ids = [look.submission_id] if look.pending else look.jobs %}
      {% do selects.append(duckdb_mistral.mistral__results_of(ids, partial)) %}
    {% elif while_running == 'error' %}
      {% do exceptions.raise_compiler_error(
        model.name ~ ": " ~ look.told ~ " `dbt run-operation mistral_wait` waits for the end.") %}
    {% else %}
      {% do exceptions.warn(model.name ~ ": " ~ look.told ~ " `dbt run-operation mistral_wait` waits for the end.") %}
      {% do selects.append(duckdb_mistral.mistral__answers_so_far(look, partial)) %}
    {% endif %}
  {% endfor %}
  {% do return(selects | join(' UNION ALL BY NAME ')) %}
{% endmacro %}


{% macro mistral__answers_so_far(look, partial) %}
  {% set id = duckdb_mistral.mistral__literal(look.submission_id) %}
  {% set ids = look.pending or 'SELECT NULL::VARCHAR AS custom_id WHERE false' %}
  {% set pending = "SELECT custom_id, 'pending' AS outcome, " ~ id ~ " AS submission_id FROM (" ~ ids ~ ")" %}
  {% if not look.ids %}{% do return(pending) %}{% endif %}
  {% set answered = duckdb_mistral.mistral__results_of(look.ids, partial) %}
  {% do return(
    answered ~ ' UNION ALL BY NAME ' ~ pending ~ ' WHERE custom_id NOT IN (SELECT custom_id FROM (' ~ answered ~ '))') %}
{% endmacro %}


{% macro mistral__results_of(ids, partial) %}
  {% set calls = [] %}
  {% for id in ids %}
    {% do calls.append("SELECT * FROM mistral_batch_results(" ~ duckdb_mistral.mistral__literal(id) ~ ", partial := " ~ partial ~ ")") %}
  {% endfor %}
  {% do return(calls | join(' UNION ALL BY NAME ')) %}
{% endmacro %}


{% macro mistral__no_answers() %}
  {% set columns = [] %}
  {% for name, type in duckdb_mistral.mistral__call('mistral_dbt_plan', {}).columns.items() if name != 'output' %}
    {% do columns.append('NULL::' ~ type ~ ' AS ' ~ duckdb_mistral.mistral__name(name)) %}
  {% endfor %}
  {% do return('SELECT ' ~ (columns | join(', ')) ~ ', NULL AS "output" WHERE false') %}
{% endmacro %}


{# The progress of the submissions in a relation of jobs; none if it is not built yet, or with --empty. #}
{% macro mistral__look_at(submitted, partial, asking) %}
  {% if flags.EMPTY or not load_relation(submitted) %}{% do return([]) %}{% endif %}
  {% set found = run_query(
    "SELECT coalesce(to_json(list({'submission_id': submission_id, 'jobs': jobs}))::VARCHAR, '[]') FROM ("
    ~ "SELECT submission_id, list(DISTINCT job_id) FILTER (job_id IS NOT NULL) AS jobs FROM " ~ submitted
    ~ " WHERE submission_id IS NOT NULL GROUP BY submission_id ORDER BY submission_id)") %}
  {% set submissions = fromjson(found.columns[0].values()[0]) %}
  {% if not submissions %}{% do return([]) %}{% endif %}
  {% do return(duckdb_mistral.mistral__call(
    'mistral_dbt_look', {'submissions': submissions, 'partial': partial, 'asking': asking})) %}
{% endmacro %}

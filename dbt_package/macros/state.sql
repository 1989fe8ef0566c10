{# The table <table>__mistral, which remembers what was asked and answered: one row per request and custom_id. #}
{% macro mistral__state(relation) %}
  {% do return(api.Relation.create(
    database=relation.database, schema=relation.schema, identifier=relation.identifier ~ '__mistral', type='table')) %}
{% endmacro %}


{# Its own columns; those of the results come after them. `asked` is server, endpoint and model. #}
{% macro mistral__own_columns() %}
  {% do return({
    'asked': 'VARCHAR', 'request': 'VARCHAR', 'custom_id': 'VARCHAR', 'tries': 'INTEGER', 'submission_id': 'VARCHAR',
    'sent_jobs': 'VARCHAR[]', 'submitted_at': 'TIMESTAMPTZ', 'answered_at': 'TIMESTAMPTZ',
  }) %}
{% endmacro %}


{# The columns of the results that are kept; whole responses only if asked for, because of their size. #}
{% macro mistral__kept_columns(plan, options) %}
  {% set kept = {} %}
  {% set own = duckdb_mistral.mistral__own_columns() %}
  {% for name, type in plan.columns.items() if name not in own and (name != 'response' or name in options.results) %}
    {% do kept.update({name: type}) %}
  {% endfor %}
  {% do return(kept) %}
{% endmacro %}


{% macro mistral__make_state(state, plan, options) %}
  {% set columns = duckdb_mistral.mistral__own_columns() %}
  {% do columns.update(duckdb_mistral.mistral__kept_columns(plan, options)) %}
  {% set definitions = [] %}
  {% for name, type in columns.items() %}
    {% do definitions.append(duckdb_mistral.mistral__name(name) ~ ' ' ~ type) %}
  {% endfor %}
  {% call statement('mistral_state') %}
    CREATE TABLE IF NOT EXISTS {{ state }} ({{ definitions | join(', ') }})
  {% endcall %}
  {% set known = duckdb_mistral.mistral__columns(state) %}
  {% for name, type in columns.items() if name not in known %}
    {% call statement('mistral_column') %}
      ALTER TABLE {{ state }} ADD COLUMN {{ duckdb_mistral.mistral__name(name) }} {{ type }}
    {% endcall %}
  {% endfor %}
  {% do adapter.commit() %}
{% endmacro %}


{# How a row finds its request: by content, whatever its custom_id or, if requests are not shared, by both. #}
{% macro mistral__matches(left, right, plan) %}
  {% set by_content = left ~ '.asked = ' ~ right ~ '.asked AND ' ~ left ~ '.request = ' ~ right ~ '.request' %}
  {% set by_row = ' AND ' ~ left ~ '.custom_id = ' ~ right ~ '.custom_id' %}
  {% do return(by_content if plan.reuse_requests else by_content ~ by_row) %}
{% endmacro %}


{# The best known answer to each request. #}
{% macro mistral__best(state, plan) %}
  {% set key = 'asked, request' if plan.reuse_requests else 'asked, request, custom_id' %}
  {% do return(
    'SELECT DISTINCT ON (' ~ key ~ ') * FROM ' ~ state ~ ' ORDER BY ' ~ key
    ~ ", CASE outcome WHEN 'ok' THEN 0 WHEN 'pending' THEN 1 ELSE 2 END, tries DESC, custom_id") %}
{% endmacro %}


{# Reads the answers of ended submissions into the state; returns the progress of each submission. #}
{% macro mistral__collect(state, plan, options) %}
  {% set known = run_query(
    "SELECT coalesce(to_json(list({'submission_id': submission_id, 'jobs': jobs}))::VARCHAR, '[]') FROM ("
    ~ "SELECT submission_id, any_value(sent_jobs) AS jobs FROM " ~ state ~ " WHERE outcome = 'pending' "
    ~ "AND starts_with(asked, " ~ duckdb_mistral.mistral__literal(plan.server_url ~ ' ') ~ ") GROUP BY submission_id)"
  ).columns[0].values()[0] %}
  {% if known == '[]' %}{% do return([]) %}{% endif %}
  {% set looks = duckdb_mistral.mistral__call(
    'mistral_dbt_look', {'submissions': fromjson(known), 'partial': options.partial}) %}
  {% for look in looks %}
    {% do duckdb_mistral.mistral__take_results(state, plan, options, look) %}
  {% endfor %}
  {% do return(looks) %}
{% endmacro %}


{% macro mistral__take_results(state, plan, options, look) %}
  {% set kept = duckdb_mistral.mistral__kept_columns(plan, options) %}
  {% set names = [] %}{% set read = ['custom_id'] %}{% set taken = [] %}
  {% for name in kept %}
    {% set quoted = duckdb_mistral.mistral__name(name) %}
    {% do names.append(quoted) %}
    {% do read.append(quoted if name != 'output' else
      'CASE WHEN "output" IS NOT NULL THEN to_json("output")::JSON END AS "output"') %}
    {% do taken.append('answer.' ~ quoted) %}
  {% endfor %}
  {% set its = 'submission_id = ' ~ duckdb_mistral.mistral__literal(look.submission_id) ~ " AND outcome = 'pending'" %}
  {% set answered_at = 'answered_at' if 'answered_at' in plan.columns else 'now() AS answered_at' %}
  {% if look.ids %}
    {% call statement('mistral_read') %}
      CREATE OR REPLACE TEMP TABLE mistral__read AS
      {% for id in look.ids %}
        SELECT {{ read | join(', ') }}, {{ answered_at }}
        FROM mistral_batch_results({{ duckdb_mistral.mistral__literal(id) }}, partial := {{ options.partial }})
        {{ 'UNION ALL' if not loop.last }}
      {% endfor %}
    {% endcall %}
    {% call statement('mistral_arrived') %}
      CREATE OR REPLACE TEMP TABLE mistral__arrived AS
      WITH pending AS (
        SELECT asked, request, custom_id, tries, submission_id, sent_jobs, submitted_at FROM {{ state }} WHERE {{ its }}
      ),
      answer AS (
        SELECT pending.request, pending.custom_id AS answered_as, read.* EXCLUDE (custom_id)
        FROM temp.main.mistral__read AS read JOIN pending ON pending.custom_id = read.custom_id
      )
      SELECT DISTINCT ON (pending.custom_id) pending.*, answer.answered_at, {{ taken | join(', ') }}
      FROM pending JOIN answer
        ON {{ 'answer.request = pending.request' if plan.reuse_requests else 'answer.answered_as = pending.custom_id' }}
      ORDER BY pending.custom_id, answer.answered_as = pending.custom_id DESC, answer.outcome = 'ok' DESC
    {% endcall %}
    {% call statement('mistral_taken') %}
      DELETE FROM {{ state }} WHERE {{ its }} AND custom_id IN (SELECT custom_id FROM temp.main.mistral__arrived);
      INSERT INTO {{ state }} BY NAME FROM temp.main.mistral__arrived
    {% endcall %}
  {% endif %}
  {% if look.ended %}
    {% call statement('mistral_missing') %}
      UPDATE {{ state }}
      SET outcome = 'missing', error = 'no result: the batch has ended without an answer to this request',
        answered_at = now()
      WHERE {{ its }}
    {% endcall %}
  {% elif look.jobs %}
    {% call statement('mistral_jobs') %}
      UPDATE {{ state }} SET sent_jobs = [{{ duckdb_mistral.mistral__literals(look.jobs) }}]
      WHERE {{ its }} AND sent_jobs IS DISTINCT FROM [{{ duckdb_mistral.mistral__literals(look.jobs) }}]
    {% endcall %}
  {% endif %}
  {% do adapter.commit() %}
{% endmacro %}


{# Takes over answers that this home already has, whoever asked for them. #}
{% macro mistral__take_found(state, plan, options) %}
  {% if not plan.reuse_requests or options.submit.force %}{% do return(none) %}{% endif %}
  {% for model in plan.models %}
    {% set asked = duckdb_mistral.mistral__literal(duckdb_mistral.mistral__asked(plan, model)) %}
    {% call statement('mistral_lacking') %}
      CREATE OR REPLACE TEMP TABLE mistral__lacking AS
      SELECT DISTINCT request FROM temp.main.mistral__wanted AS wanted
      WHERE asked = {{ asked }} AND NOT EXISTS (
        SELECT 1 FROM {{ state }} AS known
        WHERE known.asked = wanted.asked AND known.request = wanted.request AND known.outcome = 'ok'
          {# Responses may be newly asked for; this home may still have them. #}
          {{ 'AND known.response IS NOT NULL' if 'response' in options.results }}
      )
    {% endcall %}
    {% if run_query('SELECT count(*) FROM temp.main.mistral__lacking').columns[0].values()[0] %}
      {% set found = duckdb_mistral.mistral__call('mistral_dbt_found', {
        'endpoint': plan.endpoint, 'model': model, 'wanted': 'temp.main.mistral__lacking'}) %}
      {% if found.select %}
        {% do duckdb_mistral.mistral__take_answers(state, plan, options, asked, found.select) %}
      {% endif %}
    {% endif %}
  {% endfor %}
{% endmacro %}


{% macro mistral__take_answers(state, plan, options, asked, select) %}
  {% set taken = [] %}
  {% for name in duckdb_mistral.mistral__kept_columns(plan, options) %}
    {% do taken.append('true AS reused' if name == 'reused' else 'found.' ~ duckdb_mistral.mistral__name(name)) %}
  {% endfor %}
  {% set answered_at = 'found.answered_at' if 'answered_at' in plan.columns else 'now() AS answered_at' %}
  {% call statement('mistral_found') %}
    CREATE OR REPLACE TEMP TABLE mistral__found AS
    SELECT wanted.asked, wanted.request, wanted.custom_id, 0 AS tries, found.submission_id, {{ answered_at }},
      {{ taken | join(', ') }}
    FROM ({{ select }}) AS found JOIN temp.main.mistral__wanted AS wanted ON wanted.request = found.request
    WHERE wanted.asked = {{ asked }}
  {% endcall %}
  {% call statement('mistral_taken') %}
    DELETE FROM {{ state }}
    WHERE asked = {{ asked }} AND request IN (SELECT request FROM temp.main.mistral__found);
    INSERT INTO {{ state }} BY NAME FROM temp.main.mistral__found
  {% endcall %}
  {% do adapter.commit() %}
{% endmacro %}


{# Sends requests that have no answer and are not pending; returns whether there were any. #}
{% macro mistral__send(state, plan, options) %}
  {% set again = "known.outcome IN (" ~ duckdb_mistral.mistral__literals(options.retry) ~ ") AND known.tries <= "
    ~ options.retry_times if options.retry else 'false' %}
  {% call statement('mistral_unsent') %}
    CREATE OR REPLACE TEMP TABLE mistral__unsent AS
    SELECT wanted.*, coalesce(known.tries, 0) AS tries
    FROM temp.main.mistral__wanted AS wanted
    LEFT JOIN ({{ duckdb_mistral.mistral__best(state, plan) }}) AS known
      ON {{ duckdb_mistral.mistral__matches('known', 'wanted', plan) }}
    WHERE known.request IS NULL OR ({{ again }}) OR {{ options.submit.force is sameas true }}
  {% endcall %}
  {% set sent = namespace(any=false) %}
  {% for model in plan.models %}
    {% set asked = duckdb_mistral.mistral__asked(plan, model) %}
    {% set its = 'asked = ' ~ duckdb_mistral.mistral__literal(asked) %}
    {% set counted = run_query('SELECT count(*), max(tries) FROM temp.main.mistral__unsent WHERE ' ~ its).rows[0] %}
    {% if counted[0] %}
      {% set sent.any = true %}
      {% do duckdb_mistral.mistral__submit_unsent(options, model, asked, counted[1] | int) %}
      {% call statement('mistral_sent') %}
        DELETE FROM {{ state }} AS known USING temp.main.mistral__unsent AS unsent
        WHERE unsent.{{ its }} AND known.asked = unsent.asked AND known.request = unsent.request
          AND known.custom_id = unsent.custom_id;
        INSERT INTO {{ state }} BY NAME
        SELECT asked, request, custom_id, tries + 1 AS tries, 'pending' AS outcome, sent.*
        FROM temp.main.mistral__unsent, (
          SELECT any_value(submission_id) AS submission_id, list(job_id) FILTER (job_id IS NOT NULL) AS sent_jobs,
            min(created_at) AS submitted_at
          FROM temp.main.mistral__sent
        ) AS sent
        WHERE {{ its }}
      {% endcall %}
      {# Commit at once: later steps may fail, and these are paid for. #}
      {% do adapter.commit() %}
    {% endif %}
  {% endfor %}
  {% do return(sent.any) %}
{% endmacro %}


{% macro mistral__submit_unsent(options, model, asked, tries) %}
  {% set given = {} %}
  {% do given.update(options.submit) %}
  {% do given.update({'model': model}) %}
  {% if tries %}
    {# The same rows would be the same submission, so something must tell them apart. #}
    {% set metadata = given.metadata or {} %}
    {% set metadata = fromjson(metadata) if metadata is string else metadata %}
    {% set with_try = {} %}
    {% do with_try.update(metadata) %}
    {% do with_try.update({'dbt_retry': tries | string}) %}
    {% do given.update({'metadata': with_try}) %}
  {% endif %}
  {% set its = 'SELECT custom_id FROM temp.main.mistral__unsent WHERE asked = ' ~ duckdb_mistral.mistral__literal(asked) %}
  {% set source = 'SELECT * FROM (' ~ options.source ~ ') WHERE custom_id::VARCHAR IN (' ~ its ~ ')' %}
  {% call statement('mistral_submit') %}
    CREATE OR REPLACE TEMP TABLE mistral__sent AS
    SELECT submission_id, job_id, created_at
    FROM mistral_batch_submit(
      {{ duckdb_mistral.mistral__literal(source) }}{{ duckdb_mistral.mistral__arguments(given) }}
    )
  {% endcall %}
{% endmacro %}


{# How many of the model's rows wait for an answer. #}
{% macro mistral__pending(state, plan) %}
  {% set counted = run_query(
    "SELECT count(*) FROM temp.main.mistral__wanted AS wanted LEFT JOIN (" ~ duckdb_mistral.mistral__best(state, plan)
    ~ ") AS known ON " ~ duckdb_mistral.mistral__matches('known', 'wanted', plan)
    ~ " WHERE coalesce(known.outcome, 'pending') = 'pending'") %}
  {% do return(counted.columns[0].values()[0] | int) %}
{% endmacro %}


{# A full refresh drops the answers of rows that have left the model, unless all rows have. #}
{% macro mistral__forget_rows(state) %}
  {% call statement('mistral_forget') %}
    DELETE FROM {{ state }}
    WHERE outcome <> 'pending' AND custom_id NOT IN (SELECT custom_id FROM temp.main.mistral__wanted)
      AND EXISTS (SELECT 1 FROM temp.main.mistral__wanted)
  {% endcall %}
  {% do adapter.commit() %}
{% endmacro %}

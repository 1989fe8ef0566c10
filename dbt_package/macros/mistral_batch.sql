{#
  Each row of the model is one request; the table has the model's columns, followed by the answers.

  Every run converges. The table <table>__mistral remembers what was asked and answered. It knows a request by its
  content, so that it is sent only once, however the table is built. What was sent is committed there at once, whatever
  happens to the run.
#}
{% materialization mistral_batch, adapter='duckdb' %}
  {% set options = duckdb_mistral.mistral__options() %}
  {% set plan = duckdb_mistral.mistral__call('mistral_dbt_plan', options.submit) %}
  {% set shown = duckdb_mistral.mistral__shown(plan, options) %}

  {{ run_hooks(pre_hooks, inside_transaction=False) }}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}

  {% do duckdb_mistral.mistral__read_model(options, shown) %}
  {% set state = duckdb_mistral.mistral__state(this) %}
  {% do duckdb_mistral.mistral__make_state(state, plan, options) %}
  {% do duckdb_mistral.mistral__find_wanted(plan, options) %}
  {% set answers = duckdb_mistral.mistral__answered_rows(state, plan, options, shown) %}
  {% set contract = config.get('contract') %}
  {# Check the contract before anything is sent. #}
  {% if contract and contract.enforced %}{% do get_assert_columns_equivalent(answers) %}{% endif %}

  {% set left = namespace(looks=[], pending=0, going=true) %}
  {% for turn in range(options.turns) if left.going %}
    {% do duckdb_mistral.mistral__collect(state, plan, options) %}
    {% do duckdb_mistral.mistral__take_found(state, plan, options) %}
    {% set sent = duckdb_mistral.mistral__send(state, plan, options) %}
    {% if options.while_running == 'wait' %}
      {% for look in duckdb_mistral.mistral__collect(state, plan, options) if not look.ended %}
        {% for id in look.wait %}
          {% do run_query(
            'FROM mistral_batch_wait(' ~ duckdb_mistral.mistral__literal(id) ~ ', timeout_seconds := '
            ~ duckdb_mistral.mistral__literal(options.timeout_seconds) ~ ')') %}
        {% endfor %}
      {% endfor %}
    {% endif %}
    {% set left.looks = duckdb_mistral.mistral__collect(state, plan, options) %}
    {% if sent %}{% do duckdb_mistral.mistral__take_found(state, plan, options) %}{% endif %}
    {% set left.going = sent or loop.first %}
  {% endfor %}

  {% set left.pending = duckdb_mistral.mistral__pending(state, plan) %}
  {% if left.pending %}
    {% set far = left.looks | map(attribute='told') | select | join(' ') %}
    {% set rows = '1 row is' if left.pending == 1 else '{:,} rows are'.format(left.pending) %}
    {% set told = this.identifier ~ ': ' ~ rows ~ ' pending. ' ~ far %}
    {% if options.while_running == 'error' %}
      {% do exceptions.raise_compiler_error(
        told ~ " The table is unchanged. A later run has the answers: `dbt run-operation mistral_wait` waits for them.") %}
    {% endif %}
    {% do exceptions.warn(
      told ~ " A later run has their answers: `dbt run-operation mistral_wait` waits for them.") %}
  {% endif %}
  {% if should_full_refresh() and not flags.EMPTY %}{% do duckdb_mistral.mistral__forget_rows(state) %}{% endif %}

  {# From here on, this is a table, which dbt-duckdb builds and swaps. #}
  {% do context.update({'sql': answers, 'compiled_code': answers, 'pre_hooks': []}) %}
  {% set built = context['materialization_table_duckdb']() %}
  {% do return(built) %}
{% endmaterialization %}


{# One value of the model's config: by its name, or under meta, where dbt wants keys that it does not know. #}
{% macro mistral__said(name) %}
  {% set said = config.get(name) %}
  {% if said is none %}{% set said = ((config.get('meta') or {}).get('mistral') or {}).get(name) %}{% endif %}
  {% do return(said) %}
{% endmacro %}


{# All values of the model's config. #}
{% macro mistral__options() %}
  {% set submit = {} %}
  {% for name in ['model', 'endpoint', 'system', 'params', 'output', 'metadata', 'timeout_hours', 'reuse', 'max_cost',
                  'force', 'label', 'forget'] %}
    {% set said = duckdb_mistral.mistral__said(name) %}
    {% if said is not none %}{% do submit.update({name: said}) %}{% endif %}
  {% endfor %}
  {% do submit.update({'reuse': submit.reuse or 'requests'}) %}
  {% set while_running = duckdb_mistral.mistral__said('while_running') or 'keep' %}
  {% if while_running not in ['keep', 'wait', 'error'] %}
    {% do exceptions.raise_compiler_error(
      "while_running must be 'keep', 'wait' or 'error', but is '" ~ while_running ~ "'. Nothing was sent.") %}
  {% endif %}
  {% set said = duckdb_mistral.mistral__said('retry') %}
  {% set times = duckdb_mistral.mistral__said('retry_times') %}
  {% if said is mapping %}
    {% set times = said.get('times', times) %}
    {% set said = said.get('outcomes') %}
  {% endif %}
  {% set outcomes = ['missing'] if said is none else [said] if said is string else said | list %}
  {% for outcome in outcomes if outcome not in ['truncated', 'invalid_output', 'error', 'missing'] %}
    {% do exceptions.raise_compiler_error(
      "retry must be a list of truncated, invalid_output, error and missing, but holds '" ~ outcome
      ~ "'. Nothing was sent.") %}
  {% endfor %}
  {% if times is none %}{% set times = 3 %}{% endif %}
  {% if times is not integer or times < 0 %}
    {% do exceptions.raise_compiler_error("retry_times must be a whole number, but is '" ~ times ~ "'. Nothing was sent.") %}
  {% endif %}
  {% set results = duckdb_mistral.mistral__said('results') or [] %}
  {% do return({
    'submit': submit,
    'custom_id': duckdb_mistral.mistral__said('custom_id') or 'custom_id',
    'while_running': while_running,
    'retry': outcomes,
    'retry_times': times,
    'turns': 1 + times if while_running == 'wait' and said else 1,
    'results': [results] if results is string else results | list,
    'partial': duckdb_mistral.mistral__said('partial') is sameas true,
    'timeout_seconds': duckdb_mistral.mistral__said('timeout_seconds'),
  }) %}
{% endmacro %}


{# The table's columns after the model's own: name and SQL. #}
{% macro mistral__shown(plan, options) %}
  {% set shown = {'outcome': "coalesce(answer.outcome, 'pending')", 'content': 'answer."content"'} %}
  {% for field in plan.fields %}
    {% do shown.update({field: 'struct_extract(answer."output", ' ~ duckdb_mistral.mistral__literal(field) ~ ')'}) %}
  {% else %}
    {% do shown.update({'output': 'answer."output"'}) %}
  {% endfor %}
  {% do shown.update({'error': 'answer.error'}) %}
  {% set known = (plan.columns.keys() | list) + (duckdb_mistral.mistral__own_columns().keys() | list) %}
  {% for name in (['embedding'] if plan.endpoint == '/v1/embeddings' else []) + options.results if name not in shown %}
    {% if name not in known or name in ['custom_id', 'asked', 'sent_jobs'] %}
      {% do exceptions.raise_compiler_error(
        "The results have no column '" ~ name ~ "' to add. Nothing was sent.") %}
    {% endif %}
    {% do shown.update({name: 'answer.' ~ duckdb_mistral.mistral__name(name)}) %}
  {% endfor %}
  {% do return(shown) %}
{% endmacro %}


{# Reads the model once, into a temporary table, so that the rows sent are those in the final table. #}
{% macro mistral__read_model(options, shown) %}
  {% call statement('mistral_rows') %}
    {{ config.get('sql_header') or '' }}
    CREATE OR REPLACE TEMP TABLE mistral__rows AS
    SELECT * FROM (
      {{ sql }}
    ) {{ 'WHERE false' if flags.EMPTY }}
  {% endcall %}
  {% set names = duckdb_mistral.mistral__columns('temp.main.mistral__rows') %}
  {% if options.custom_id | lower not in names %}
    {% do exceptions.raise_compiler_error(
      "The model has no column " ~ options.custom_id ~ ". Name the column whose values tell its rows apart in the "
      ~ "config: custom_id='…'. Nothing was sent.") %}
  {% endif %}
  {% for name in shown if name | lower in names %}
    {% do exceptions.raise_compiler_error(
      "The model has its own column " ~ name ~ ", and so do the answers. Rename the model's. Nothing was sent.") %}
  {% endfor %}
  {% do options.update({'source': duckdb_mistral.mistral__source('temp.main.mistral__rows', options.custom_id, names)}) %}
{% endmacro %}


{# What to ask which model: each row's request, as the hash of its body, once per model. #}
{% macro mistral__find_wanted(plan, options) %}
  {% set given = {} %}
  {% for name, value in options.submit.items() if name in ['endpoint', 'system', 'params', 'output'] %}
    {% do given.update({name: value}) %}
  {% endfor %}
  {% set asked = [] %}
  {% for model in plan.models %}
    {% do asked.append('(' ~ duckdb_mistral.mistral__literal(duckdb_mistral.mistral__asked(plan, model)) ~ ')') %}
  {% endfor %}
  {% call statement('mistral_wanted') %}
    CREATE OR REPLACE TEMP TABLE mistral__wanted AS
    SELECT custom_id, md5(body::VARCHAR) AS request, asked
    FROM mistral_batch_preview(
      {{ duckdb_mistral.mistral__literal(options.source) }}{{ duckdb_mistral.mistral__arguments(given) }}
    ), (VALUES {{ asked | join(', ') }}) AS models (asked)
  {% endcall %}
  {% set repeated = run_query(
    "SELECT string_agg(custom_id || ' (' || times || ' times)', ', ') FROM (SELECT custom_id, count(*) AS times "
    ~ "FROM temp.main.mistral__wanted GROUP BY custom_id, asked HAVING count(*) > 1 ORDER BY custom_id LIMIT 5)"
  ).columns[0].values()[0] %}
  {% if repeated %}
    {% do exceptions.raise_compiler_error(
      "The model repeats values of its column " ~ options.custom_id ~ ", which must tell its rows apart: " ~ repeated
      ~ ". Nothing was sent.") %}
  {% endif %}
{% endmacro %}


{% macro mistral__asked(plan, model) %}
  {% do return(plan.server_url ~ ' ' ~ plan.endpoint ~ ' ' ~ model) %}
{% endmacro %}


{# The SELECT that the table is made from. #}
{% macro mistral__answered_rows(state, plan, options, shown) %}
  {% set columns = [] %}
  {% for name, sql in shown.items() %}
    {% do columns.append(sql ~ ' AS ' ~ duckdb_mistral.mistral__name(name)) %}
  {% endfor %}
  {% set select %}
    SELECT model_rows.*, {{ columns | join(', ') }}
    FROM temp.main.mistral__rows AS model_rows
    JOIN temp.main.mistral__wanted AS wanted
      ON wanted.custom_id = model_rows.{{ duckdb_mistral.mistral__name(options.custom_id) }}::VARCHAR
    LEFT JOIN (
      SELECT * REPLACE (TRY_CAST("output" AS {{ plan.output }}) AS "output")
      FROM ({{ duckdb_mistral.mistral__best(state, plan) }})
    ) AS answer ON {{ duckdb_mistral.mistral__matches('answer', 'wanted', plan) }}
    ORDER BY model_rows.rowid
  {% endset %}
  {% do return(select) %}
{% endmacro %}

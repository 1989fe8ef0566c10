{# Shared by the other macros of this package. All names with two underscores are internal. #}


{# Calls a function of the plugin: JSON in, JSON out. #}
{% macro mistral__call(function, given) %}
  {% set known = run_query("SELECT count(*) FROM duckdb_functions() WHERE function_name = '" ~ function ~ "'") %}
  {% if known.columns[0].values()[0] == 0 %}
    {% do exceptions.raise_compiler_error(
      "This target has no mistral functions. Add `plugins: [{module: duckdb_mistral.dbt}]` to it in profiles.yml; "
      ~ "pip install 'duckdb-mistral[dbt]' installs the module.") %}
  {% endif %}
  {% set found = run_query("SELECT " ~ function ~ "(" ~ duckdb_mistral.mistral__literal(tojson(given)) ~ ")") %}
  {% set answer = fromjson(found.columns[0].values()[0]) %}
  {% if answer.error %}{% do exceptions.raise_compiler_error(answer.error) %}{% endif %}
  {% do return(answer.answer) %}
{% endmacro %}


{# A config value as SQL: text, number, boolean or NULL; lists and mappings become the text of their JSON. #}
{% macro mistral__literal(value) %}
  {% if value is none %}{% do return('NULL') %}{% endif %}
  {% if value is sameas true or value is sameas false %}{% do return(value | string | lower) %}{% endif %}
  {% if value is number %}{% do return(value | string) %}{% endif %}
  {% set text = value if value is string else tojson(value) %}
  {% do return("'" ~ (text | replace("'", "''")) ~ "'") %}
{% endmacro %}


{% macro mistral__literals(values) %}
  {% set quoted = [] %}
  {% for value in values %}{% do quoted.append(duckdb_mistral.mistral__literal(value)) %}{% endfor %}
  {% do return(quoted | join(', ')) %}
{% endmacro %}


{% macro mistral__name(name) %}
  {% do return('"' ~ (name | replace('"', '""')) ~ '"') %}
{% endmacro %}


{# The arguments of a submit or a preview, as SQL that follows the source. #}
{% macro mistral__arguments(given) %}
  {% set written = [] %}
  {% for name, value in given.items() if value is not none %}
    {% if value is sequence and value is not string and value is not mapping %}
      {% set sql = '[' ~ duckdb_mistral.mistral__literals(value) ~ ']' %}
    {% else %}
      {% set sql = duckdb_mistral.mistral__literal(value) %}
    {% endif %}
    {% do written.append(', ' ~ name ~ ' := ' ~ sql) %}
  {% endfor %}
  {% do return(written | join('')) %}
{% endmacro %}


{# Whether dbt is building a model right now. Only then is anything sent: not for a test, an operation or a hook. #}
{% macro mistral__builds() %}
  {% do return(
    execute and flags.WHICH in ['run', 'build', 'retry'] and model is defined and model.resource_type == 'model') %}
{% endmacro %}


{# A SELECT of a source for a submit: the column that tells the rows apart as custom_id, and all other columns. #}
{% macro mistral__source(relation, custom_id, names=none) %}
  {% if custom_id | lower == 'custom_id' %}{% do return('SELECT * FROM ' ~ relation) %}{% endif %}
  {% set column = duckdb_mistral.mistral__name(custom_id) %}
  {% set left = [] if custom_id | lower in ['prompt', 'messages', 'input', 'document', 'file_url', 'body'] else [column] %}
  {% if 'custom_id' in (names or []) %}{% do left.append('custom_id') %}{% endif %}
  {% set others = '* EXCLUDE (' ~ (left | join(', ')) ~ ')' if left else '*' %}
  {% do return('SELECT ' ~ column ~ '::VARCHAR AS custom_id, ' ~ others ~ ' FROM ' ~ relation) %}
{% endmacro %}


{# The columns of a relation or a SELECT, in lower case. #}
{% macro mistral__columns(relation) %}
  {% set described = run_query('SELECT lower(column_name) FROM (DESCRIBE ' ~ relation ~ ')') %}
  {% do return(described.columns[0].values() | list) %}
{% endmacro %}
